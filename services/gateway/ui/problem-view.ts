import type { CloisterError } from "#errors/catalogue";
import { ERRORS } from "#errors/catalogue";
import { type Html, html } from "./html.ts";
import { page } from "./layout.ts";
import type { Viewer } from "./viewer.ts";

/** An error as a page: what, why, and what to do. */
export function problemPage(error: CloisterError, viewer: Viewer | undefined): Html {
  const { title, status, remedy } = ERRORS[error.code];
  return page({
    title,
    viewer,
    body: html`<div class="notice bad" role="alert"><p>${error.message}.</p></div>
<p>${remedy}</p><p class="faint">${status} <code>${error.code}</code></p>
<p><a href="/ui">Back to the overview</a></p>`,
  });
}
