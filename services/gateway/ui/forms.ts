import { type Html, html } from "./html.ts";

/** What is wrong with a form, by the name of the field; "" is the form itself. */
export type Errors = Readonly<Record<string, string>>;

export interface Field {
  name: string;
  label: string;
  value?: string;
  hint?: string;
  placeholder?: string;
  required?: boolean;
  type?: "text" | "password" | "datetime-local" | "search";
  inputmode?: "numeric" | "decimal";
  maxlength?: number;
  autocomplete?: string;
}

const idOf = (name: string): string => `f-${name}`;

/** Ties an input to its hint and its error. */
function described(name: string, hint: string | undefined, error: string | undefined): Html {
  const ids = [hint && `${idOf(name)}-hint`, error && `${idOf(name)}-error`].filter(Boolean);
  return html`${ids.length > 0 && html` aria-describedby="${ids.join(" ")}"`}${error !== undefined && html` aria-invalid="true"`}`;
}

const hintOf = (name: string, hint: string | undefined): Html | false =>
  hint !== undefined && html`<span class="hint" id="${idOf(name)}-hint">${hint}</span>`;
const errorOf = (name: string, error: string | undefined): Html | false =>
  error !== undefined &&
  html`<span class="error" id="${idOf(name)}-error"><span aria-hidden="true">■</span> ${error}</span>`;

/** One line of text with its label, and what is wrong with it. */
export function input(field: Field, errors: Errors = {}): Html {
  const { name, label, value, hint, placeholder, type = "text" } = field;
  const error = errors[name];
  const first = Object.keys(errors).find((key) => key !== "") === name;
  return html`<div class="field"><label for="${idOf(name)}">${label}</label>${hintOf(name, hint)}<input id="${idOf(name)}" name="${name}" type="${type}" value="${value ?? ""}"${placeholder !== undefined && html` placeholder="${placeholder}"`}${field.required === true && html` required`}${field.inputmode !== undefined && html` inputmode="${field.inputmode}"`}${field.maxlength !== undefined && html` maxlength="${field.maxlength}"`} autocomplete="${field.autocomplete ?? "off"}"${described(name, hint, error)}${first && html` autofocus`}>${errorOf(name, error)}</div>`;
}

/** Several lines of text. */
export function textarea(
  field: Pick<Field, "name" | "label" | "value" | "hint" | "placeholder">,
  errors: Errors = {},
): Html {
  const { name, label, value, hint, placeholder } = field;
  const error = errors[name];
  // A browser leaves out the first line break of its text.
  return html`<div class="field"><label for="${idOf(name)}">${label}</label>${hintOf(name, hint)}<textarea id="${idOf(name)}" name="${name}" rows="4" spellcheck="false"${placeholder !== undefined && html` placeholder="${placeholder}"`}${described(name, hint, error)}>\n${value ?? ""}</textarea>${errorOf(name, error)}</div>`;
}

export interface Choice {
  value: string;
  label: string;
}

/** One of several. */
export function select(
  field: Pick<Field, "name" | "label" | "value" | "hint"> & { choices: readonly Choice[] },
  errors: Errors = {},
): Html {
  const { name, label, value, hint, choices } = field;
  const error = errors[name];
  return html`<div class="field"><label for="${idOf(name)}">${label}</label>${hintOf(name, hint)}<select id="${idOf(name)}" name="${name}"${described(name, hint, error)}>${choices.map(
    (choice) =>
      html`<option value="${choice.value}"${choice.value === value && html` selected`}>${choice.label}</option>`,
  )}</select>${errorOf(name, error)}</div>`;
}

/** Any number of several. */
export function checkboxes(
  field: Pick<Field, "name" | "label" | "hint"> & {
    choices: readonly Choice[];
    checked: readonly string[];
  },
  errors: Errors = {},
): Html {
  const { name, label, hint, choices, checked } = field;
  return html`<fieldset class="field"><legend>${label}</legend>${hintOf(name, hint)}${choices.map(
    (choice) =>
      html`<label class="check"><input type="checkbox" name="${name}" value="${choice.value}"${checked.includes(choice.value) && html` checked`}> ${choice.label}</label>`,
  )}${errorOf(name, errors[name])}</fieldset>`;
}

export const hidden = (name: string, value: string): Html =>
  html`<input type="hidden" name="${name}" value="${value}">`;

/** What is wrong with the form as a whole, before its fields; says of how many fields something is wrong. */
export function complaint(errors: Errors, done = "Nothing was saved"): Html | false {
  const fields = Object.keys(errors).filter((name) => name !== "");
  if (errors[""] === undefined && fields.length === 0) return false;
  const sentence =
    errors[""] ??
    (fields.length === 1
      ? `${done}: one field is not right.`
      : `${done}: ${fields.length} fields are not right.`);
  return html`<div class="notice bad" role="alert"><p>${sentence}</p>${
    fields.length > 0 &&
    html`<ul>${fields.map((name) => html`<li><a href="#${idOf(name)}">${errors[name]}</a></li>`)}</ul>`
  }</div>`;
}
