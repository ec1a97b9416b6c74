import type { Hono } from "hono";
import { markdownOf } from "#comparison/tables";
import { type CompareRequest, compareRequestSchema } from "#contracts/comparison";
import { CloisterError } from "#errors/catalogue";
import type { Comparisons } from "../../compare/comparisons.ts";
import { type KeptComparison, KeptComparisons } from "../../compare/kept-comparisons.ts";
import type { GatewayContext } from "../../gateway-context.ts";
import { knownError } from "../../middleware/problems.ts";
import {
  COMPARE_LABELS,
  type CompareFields,
  comparePage,
  comparisonHref,
  comparisonPage,
  NEW_COMPARISON,
} from "../../ui/compare-view.ts";
import type { Errors } from "../../ui/forms.ts";
import { issueWords } from "../../ui/issue-words.ts";
import { existing } from "../functions.ts";
import { eventStream } from "../log-stream.ts";
import { type Form, readForm } from "./form.ts";
import type { Door } from "./sign-in.ts";
import { readersOnly, show, type UiContext, type UiEnv } from "./ui-env.ts";

/** Streams of one comparison at once. */
const MOST_WATCHERS = 10;
/** A page is told of what has changed so often at most, ms. */
const TELL_MS = 250;
/** Whoever compares is asked for the key's worth again after this, ms. */
const ASK_AGAIN_MS = 5000;

/** Refusals that are said on the form: another try may do. */
const ON_FORM = { bad_request: 400, conflict: 409, capacity_exhausted: 429 } as const;

/** Comparing a function of one's own tenant, by the code of /v1/compare. */
export function registerComparePages(
  ui: Hono<UiEnv>,
  gateway: GatewayContext,
  { comparisons, door }: { comparisons: Comparisons; door: Door },
): void {
  const kept = new KeptComparisons();

  /** The form, of a function of the reader's own tenant. */
  const form = async (c: UiContext, fields: CompareFields, errors?: Errors, status?: 400) => {
    const viewer = c.get("viewer");
    const { id } = viewer.tenant;
    const { name, version } = await existing(gateway, id, c.req.param("name") ?? "");
    const [mine, running] = [kept.of(id, name), kept.running(id)];
    const shown = { name, version, fields, kept: mine, running };
    return show(c, comparePage(viewer, shown, errors), status);
  };

  const addressed = (c: UiContext): KeptComparison => {
    const one = kept.find(c.get("viewer").tenant.id, c.req.param("id") ?? "");
    if (one) return one;
    throw new CloisterError(
      "not_found",
      "There is no such comparison here: the last five of a tenant are kept for an hour, by the gateway that made them",
    );
  };
  const resultOf = (c: UiContext) => {
    const { outcome } = addressed(c);
    if (outcome && "result" in outcome) return outcome.result;
    throw new CloisterError("not_found", "This comparison has no result");
  };

  ui.get("/functions/:name/compare", readersOnly, (c) => form(c, NEW_COMPARISON));

  ui.post("/functions/:name/compare", readersOnly, async (c) => {
    invokersOnly(c);
    const sent = fieldsOf(await readForm(c));
    const asked = requestOf(c.req.param("name"), sent);
    if ("errors" in asked) return form(c, sent, asked.errors, 400);
    try {
      const begun = await comparisons.begin(c.get("viewer").tenant.id, asked.request);
      const one = kept.start(begun, gateway.drained, (error) =>
        knownError(error instanceof Error ? error : new Error(String(error)), gateway.onProblem),
      );
      const timer = setInterval(
        () => void door.stillOpen(c).then((open) => open || one.stop()),
        ASK_AGAIN_MS,
      );
      void one.ended.finally(() => clearInterval(timer));
      return c.redirect(comparisonHref(one), 303);
    } catch (error) {
      if (!(error instanceof CloisterError && error.code in ON_FORM)) throw error;
      const status = ON_FORM[error.code as keyof typeof ON_FORM];
      return form(c, sent, { "": `${error.message}.` }, status as 400);
    }
  });

  ui.get("/comparisons/:id", readersOnly, (c) =>
    show(c, comparisonPage(c.get("viewer"), addressed(c))),
  );

  ui.post("/comparisons/:id/stop", readersOnly, async (c) => {
    invokersOnly(c);
    await readForm(c);
    const one = addressed(c);
    one.stop();
    await one.ended;
    return c.redirect(comparisonHref(one), 303);
  });

  ui.get("/comparisons/:id/events", readersOnly, (c) => {
    const one = addressed(c);
    if (one.watchers >= MOST_WATCHERS)
      throw new CloisterError("capacity_exhausted", "Too many pages follow this comparison");
    return eventStream(
      gateway.drained,
      async ({ say, end }) => {
        let timer: NodeJS.Timeout | undefined;
        const tell = (): void => {
          timer = undefined;
          const { done, of, cells, outcome } = one;
          say({ done, of, cells: [...cells.values()], ended: outcome !== undefined });
          if (outcome) end();
        };
        const changed = (): void => {
          if (one.outcome) {
            clearTimeout(timer);
            tell();
          } else timer ??= setTimeout(tell, TELL_MS);
        };
        const forget = one.watch(changed);
        const asking = setInterval(
          () => void door.stillOpen(c).then((open) => open || end()),
          ASK_AGAIN_MS,
        );
        // What is there already: told when the stream has begun, which takes nothing before.
        timer = setTimeout(tell, 0);
        return () => {
          clearTimeout(timer);
          clearInterval(asking);
          forget();
        };
      },
      () => {},
    );
  });

  ui.get("/comparisons/:id/table.md", readersOnly, (c) => c.text(markdownOf(resultOf(c))));
  ui.get("/comparisons/:id/result.json", readersOnly, (c) => c.json(resultOf(c)));
}

function invokersOnly(c: UiContext): void {
  if (!c.get("viewer").invoke)
    throw new CloisterError("forbidden", "This needs a key with the scope invoke");
}

const fieldsOf = (form: Form): CompareFields => ({
  n: form.text("n").trim(),
  paths: form.all("paths"),
  data: form.text("data"),
  method: form.text("method"),
  path: form.text("path").trim(),
  body: form.text("body"),
});

/** What the API would be asked; or what is wrong with it, by field. */
function requestOf(
  name: string,
  { n, paths, data, method, path, body }: CompareFields,
): { request: CompareRequest } | { errors: Errors } {
  const event = data.trim() !== "";
  const http = {
    ...(method === "" ? {} : { method }),
    ...(path === "" ? {} : { path }),
    ...(body === "" ? {} : { body }),
  };
  // Fields that were left as they are do not ask for a call over HTTP.
  const plain = body === "" && (method === "" || method === "GET") && (path === "" || path === "/");
  let value: unknown;
  try {
    if (event) value = JSON.parse(data);
  } catch {
    return { errors: { data: `${COMPARE_LABELS.data}: this is not JSON` } };
  }
  const parsed = compareRequestSchema.safeParse({
    function: name,
    ...(n === "" ? {} : { n: Number(n) }),
    paths,
    ...(event ? { data: value } : {}),
    ...(event && plain ? {} : { request: http }),
  });
  if (parsed.success) return { request: parsed.data };
  const errors: Record<string, string> = {};
  for (const issue of parsed.error.issues) {
    const [first, second] = issue.path.map(String);
    const field = (first === "request" ? second : first) ?? "";
    if (field === "")
      errors.data ??= `${COMPARE_LABELS.data}: leave it empty, or leave the call over HTTP as it was`;
    else errors[field] ??= `${COMPARE_LABELS[field] ?? field}: ${issueWords(issue)}`;
  }
  return { errors };
}
