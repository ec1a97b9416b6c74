import { complaint, type Errors, hidden, input } from "./forms.ts";
import { type Html, html } from "./html.ts";
import { page } from "./layout.ts";

/** The form that takes a key. `next` is where the reader wanted to go. */
export function signInPage(next: string, errors: Errors = {}, said?: string): Html {
  return page({
    title: "Sign in",
    said,
    body: html`${errors.key === undefined && complaint(errors)}
<form class="card narrow" method="post" action="/ui/sign-in">${hidden("next", next)}
${input(
  {
    name: "key",
    label: "Key",
    type: "password",
    required: true,
    maxlength: 200,
    hint: "It begins with cl_. The first keys are in credentials.json in the data folder of ./cloister up.",
    autocomplete: "current-password",
  },
  errors,
)}
<p><button>Sign in</button></p></form>
<p class="faint">An admin key of the operator shows all tenants and nodes; any other key what is its own tenant's. The key is kept in an encrypted cookie for this
dashboard alone, at most twelve hours.</p>`,
  });
}
