import { SCOPES } from "#contracts/tenant";
import type { ClearKey, KeySummary } from "#db/keys";
import type { Tenant } from "#db/tenants";
import { type KeyState, keyState } from "../admin/key-changes.ts";
import { checkboxes, complaint, type Errors, hidden, input, select } from "./forms.ts";
import { type Html, html } from "./html.ts";
import { page } from "./layout.ts";
import { facts, type Mood, named, state, table } from "./tables.ts";
import { tenantHref } from "./tenants-view.ts";
import type { Viewer } from "./viewer.ts";
import { moment, momentOr } from "./words.ts";

const MOODS: Record<KeyState, Mood> = { active: "good", expired: "warn", revoked: "plain" };

const hrefOf = (tenant: Tenant, key: KeySummary, rest: string): string =>
  tenantHref(tenant, `/keys/${key.id}/${rest}`);

/** A tenant's keys, without their secrets. */
export function keyTable(
  tenant: Tenant,
  keys: readonly KeySummary[],
  next: string | undefined,
): Html {
  return html`${table({
    caption: "Keys in order of their making",
    none: "No key yet: nobody can deploy or call anything.",
    columns: ["Name", "Scopes", "State", "Created", "Last used", "Expires", "Id", ""].map(
      (title) => ({ title }),
    ),
    rows: keys.map((key) => [
      named(key.name),
      key.scopes.join(", "),
      state(keyState(key), MOODS[keyState(key)]),
      moment(key.createdAt),
      momentOr(key.lastUsedAt, "never"),
      momentOr(key.expiresAt, "never"),
      html`<code>${key.id}</code>`,
      keyState(key) === "active"
        ? html`<a href="${hrefOf(tenant, key, "rotate")}">Rotate<span class="hidden"> ${named(key.name)}</span></a> <a href="${hrefOf(tenant, key, "revoke")}">Revoke<span class="hidden"> ${named(key.name)}</span></a>`
        : "",
    ]),
  })}${next !== undefined && html`<p class="pages"><a rel="next" href="${tenantHref(tenant, `?keysAfter=${next}#keys`)}">More keys</a></p>`}`;
}

const trailOf = (viewer: Viewer, tenant: Tenant) => [
  ...(viewer.operator ? [{ title: "Tenants", href: "/ui/tenants" }] : []),
  { title: tenant.name, href: tenantHref(tenant) },
];

export interface NewKeyValues {
  name?: string;
  scopes?: readonly string[];
  expiresAt?: string;
}

const MEANINGS: Record<(typeof SCOPES)[number], string> = {
  invoke: "call functions",
  deploy: "publish and delete them",
  read: "see them, their logs and calls",
  admin: "govern keys",
};

export function newKeyPage(
  viewer: Viewer,
  tenant: Tenant,
  values: NewKeyValues = {},
  errors: Errors = {},
): Html {
  return page({
    title: "New key",
    viewer,
    place: viewer.operator ? "tenants" : "overview",
    trail: trailOf(viewer, tenant),
    body: html`${complaint(errors)}
<form class="card narrow" method="post" action="${tenantHref(tenant, "/keys")}">
${input(
  {
    name: "name",
    label: "Name",
    value: values.name ?? "",
    required: true,
    maxlength: 100,
    hint: "For people: who or what uses it.",
  },
  errors,
)}
${checkboxes(
  {
    name: "scopes",
    label: "It may",
    choices: SCOPES.map((scope) => ({ value: scope, label: `${scope}: ${MEANINGS[scope]}` })),
    checked: values.scopes ?? [],
  },
  errors,
)}
${input(
  {
    name: "expiresAt",
    label: "Expires (UTC)",
    type: "datetime-local",
    value: values.expiresAt ?? "",
    hint: "Empty: never.",
  },
  errors,
)}
<p class="actions"><button>Create key</button> <a href="${tenantHref(tenant)}">Cancel</a></p></form>`,
  });
}

/** The key itself, which nobody can show again. */
export function clearKeyPage(
  viewer: Viewer,
  tenant: Tenant,
  { key, clear }: ClearKey,
  said: string,
): Html {
  return page({
    title: "Key",
    viewer,
    place: viewer.operator ? "tenants" : "overview",
    trail: trailOf(viewer, tenant),
    said,
    body: html`<div class="card"><p><strong>This is shown once.</strong> Copy it now; only its digest is stored.</p>
<p><label for="clear">The key</label><input id="clear" class="clear" readonly value="${clear}" autocomplete="off" autofocus></p>
${facts([
  ["Name", named(key.name)],
  ["May", key.scopes.join(", ")],
  ["Expires", momentOr(key.expiresAt, "never")],
  ["Id", html`<code>${key.id}</code>`],
])}
${key.previousUntil && html`<p>The old secret is taken until ${moment(key.previousUntil)}.</p>`}
<p><a class="button" href="${tenantHref(tenant, "#keys")}">I have copied it</a></p></div>`,
  });
}

/** Asks before something is done to a key. */
function askPage(
  viewer: Viewer,
  tenant: Tenant,
  { key, etag, errors }: { key: KeySummary; etag: string; errors: Errors },
  what: { title: string; href: string; body: Html; button: Html },
): Html {
  return page({
    title: what.title,
    viewer,
    place: viewer.operator ? "tenants" : "overview",
    trail: trailOf(viewer, tenant),
    body: html`${complaint(errors)}
<form class="card narrow" method="post" action="${hrefOf(tenant, key, what.href)}">${hidden("etag", etag)}
${what.body}
<p class="actions">${what.button} <a href="${tenantHref(tenant)}">Cancel</a></p></form>`,
  });
}

const GRACES = [
  ["0", "not at all"],
  ["300000", "for 5 minutes"],
  ["3600000", "for 1 hour"],
  ["86400000", "for 24 hours"],
] as const;

export const rotateKeyPage = (
  viewer: Viewer,
  tenant: Tenant,
  key: KeySummary,
  etag: string,
  errors: Errors = {},
): Html =>
  askPage(
    viewer,
    tenant,
    { key, etag, errors },
    {
      title: "Rotate key",
      href: "rotate",
      button: html`<button>Rotate</button>`,
      body: html`<p>${named(key.name)} <code>${key.id}</code> gets a new secret. Its id, scopes and expiry stay.</p>
${select({
  name: "graceMs",
  label: "The old secret is still taken",
  value: "3600000",
  choices: GRACES.map(([value, label]) => ({ value, label })),
})}`,
    },
  );

export const revokeKeyPage = (
  viewer: Viewer,
  tenant: Tenant,
  key: KeySummary,
  etag: string,
  errors: Errors = {},
): Html =>
  askPage(
    viewer,
    tenant,
    { key, etag, errors },
    {
      title: "Revoke key",
      href: "revoke",
      button: html`<button class="danger">Revoke ${named(key.name)}</button>`,
      body: html`<p>${named(key.name)} <code>${key.id}</code> is refused from then on, by every gateway, for good.</p>
${facts([
  ["May", key.scopes.join(", ")],
  ["Last used", momentOr(key.lastUsedAt, "never")],
])}`,
    },
  );
