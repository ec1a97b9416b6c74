/** Rows of the table that is rendered. */
const SIZES = { small: 10, medium: 1000, large: 20_000 };

/** A page with a table, made of templates; every value is escaped. */
export const handler = async (event) => {
  const size = event.queryStringParameters?.size ?? event.size ?? "small";
  if (!Object.hasOwn(SIZES, size))
    return { statusCode: 400, body: "size is small, medium or large" };
  const rows = Array.from({ length: SIZES[size] }, (_, index) => rowOf(index));
  const total = rows.reduce((sum, { price }) => sum + price, 0);
  const body = page({ user: 'Ada "Countess" <Lovelace>', total, rows });
  return { statusCode: 200, headers: { "content-type": "text/html; charset=utf-8" }, body };
};

const rowOf = (index) => ({
  name: `Item ${index} <${index % 7}>`,
  price: (index * 7919) % 1000,
  tags: ["new", "sale", "a & b"].filter((_, at) => (index >> at) % 2 === 1),
});

const page = ({ user, total, rows }) =>
  `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Order of ${escaped(user)}</title></head>
<body><h1>Hello, ${escaped(user)}</h1><table>
${rows.map(row).join("\n")}
</table><p>${rows.length} items, ${total} in all</p></body></html>
`;

const row = ({ name, price, tags }) =>
  `<tr${price > 500 ? ' class="dear"' : ""}><td>${escaped(name)}</td><td>${price}</td><td>${tags.map((tag) => `<em>${escaped(tag)}</em>`).join(" ")}</td></tr>`;

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };
const escaped = (text) => text.replaceAll(/[&<>"']/g, (found) => ENTITIES[found]);
