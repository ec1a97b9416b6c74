import { createElement as h } from "react";
import { renderToStaticMarkup } from "react-dom/server";

/** Rows of the list that is rendered. */
const SIZES = { small: 10, medium: 500, large: 5000 };

/** A page rendered by React on the server. */
export const handler = async (event) => {
  const size = event.queryStringParameters?.size ?? event.size ?? "small";
  if (!Object.hasOwn(SIZES, size))
    return { statusCode: 400, body: "size is small, medium or large" };
  const people = Array.from({ length: SIZES[size] }, (_, id) => personOf(id));
  const body = `<!doctype html>${renderToStaticMarkup(h(Page, { people }))}`;
  return { statusCode: 200, headers: { "content-type": "text/html; charset=utf-8" }, body };
};

const personOf = (id) => ({
  id,
  name: `Person ${id} <${id % 5}>`,
  age: 20 + ((id * 7919) % 60),
  friends: [1, 2, 3].map((step) => (id * step + 17) % 1000),
});

const Page = ({ people }) =>
  h(
    "html",
    { lang: "en" },
    h("head", null, h("title", null, `${people.length} people`)),
    h(
      "body",
      null,
      h("ul", null, ...people.map((person) => h(Person, { key: person.id, person }))),
    ),
  );

const Person = ({ person: { id, name, age, friends } }) =>
  h(
    "li",
    { id: `p${id}`, className: age > 50 ? "old" : "young", style: { order: id % 3 } },
    h("b", null, name),
    " is ",
    age,
    h(Friends, { friends }),
  );

const Friends = ({ friends }) =>
  h(
    "ol",
    null,
    ...friends.map((friend) => h("li", { key: friend }, h("a", { href: `#p${friend}` }, friend))),
  );
