import type { ZodError } from "zod";
import { CloisterError } from "#errors/catalogue";
import { readTextBody } from "../../publish/read-json-body.ts";
import type { Errors } from "../../ui/forms.ts";
import { issueWords } from "../../ui/issue-words.ts";
import type { UiContext } from "./ui-env.ts";

const FORM_TYPE = /^application\/x-www-form-urlencoded\s*(?:;|$)/i;
const MAX_BYTES = 32 * 1024;

/** What a form was sent with. */
export class Form {
  readonly #fields: URLSearchParams;

  constructor(text: string) {
    this.#fields = new URLSearchParams(text);
  }

  /** The field's first value; "" when it was not sent. */
  text(name: string): string {
    return this.#fields.get(name) ?? "";
  }

  all(name: string): string[] {
    return this.#fields.getAll(name);
  }

  /** The state that the change is of, as If-Match would name it. */
  get etag(): string | undefined {
    return this.#fields.get("etag") ?? undefined;
  }
}

/** Reads a form of at most 32 KiB. */
export async function readForm(c: UiContext): Promise<Form> {
  if (!FORM_TYPE.test(c.req.header("content-type") ?? ""))
    throw new CloisterError("unsupported_media_type", "The body is to be a form of this dashboard");
  return new Form(
    await readTextBody(c.req.raw.body, MAX_BYTES, `A form is at most ${MAX_BYTES} bytes`),
  );
}

/** What a schema says, by field. */
export function errorsOf(error: ZodError, labels: Readonly<Record<string, string>> = {}): Errors {
  const errors: Record<string, string> = {};
  for (const issue of error.issues) {
    const field = String(issue.path[0] ?? "");
    errors[field] ??= `${labels[field] ?? field}: ${issueWords(issue)}`;
  }
  return errors;
}

const STALE =
  "Somebody changed this after you opened it. This page shows how it is now: look at it and send your change again.";

/** A refusal that its reader can do something about, as what is wrong with the form; anything else is thrown on. */
export function refusalOf(error: unknown): { status: 400 | 409 | 412; errors: Errors } {
  if (error instanceof CloisterError) {
    const { code, message } = error;
    if (code === "precondition_failed") return { status: 412, errors: { "": STALE } };
    if (code === "conflict") return { status: 409, errors: { "": `${message}.` } };
    if (code === "bad_request") return { status: 400, errors: { "": `${message}.` } };
  }
  throw error;
}
