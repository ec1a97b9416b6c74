import { html as template } from "hono/html";
import type { HtmlEscapedString } from "hono/utils/html";

export { raw } from "hono/html";

/** Markup in which every byte from elsewhere is escaped. */
export type Html = HtmlEscapedString;

/** A template of markup. What stands in `${}` is escaped unless it is markup itself; false, null and undefined are nothing, lists are joined. */
export const html = (strings: TemplateStringsArray, ...values: unknown[]): Html =>
  // It is a promise only where a value is one, and pages are made of what has been read.
  template(strings, ...values) as Html;
