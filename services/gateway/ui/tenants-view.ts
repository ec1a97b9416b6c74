import { TIERS } from "#contracts/tenant";
import type { Tenant } from "#db/tenants";
import { complaint, type Errors, hidden, input, select } from "./forms.ts";
import { type Html, html } from "./html.ts";
import { page } from "./layout.ts";
import { named, state, table } from "./tables.ts";
import type { Viewer } from "./viewer.ts";
import { address, moment } from "./words.ts";

export interface TenantSearch {
  search?: string | undefined;
  tier?: string | undefined;
  state?: string | undefined;
}

const tiers = TIERS.map((tier) => ({ value: tier, label: tier }));

export const tenantState = (active: boolean): Html =>
  active ? state("active", "good") : state("suspended", "warn");

export const tenantHref = ({ id }: Pick<Tenant, "id">, rest = ""): string =>
  `/ui/tenants/${id}${rest}`;

/** Tenants in order of name, a page of them, with what they are searched by. */
export function tenantsPage(
  viewer: Viewer,
  found: readonly Tenant[],
  {
    search,
    ...query
  }: { search: TenantSearch; after?: string | undefined; next?: string | undefined },
  said?: string,
): Html {
  const pages = [
    query.after !== undefined &&
      html`<a href="${address("/ui/tenants", { ...search })}">First page</a>`,
    query.next !== undefined &&
      html`<a rel="next" href="${address("/ui/tenants", { ...search, after: query.next })}">Next page</a>`,
  ];
  const any = { value: "", label: "any" };
  return page({
    title: "Tenants",
    viewer,
    place: "tenants",
    said,
    body: html`<p class="actions"><a class="button" href="/ui/tenants/new">New tenant</a></p>
<form class="search" method="get" action="/ui/tenants" role="search">
${input({ name: "search", label: "Name holds", type: "search", value: search.search ?? "", maxlength: 63 })}
${select({ name: "tier", label: "Tier", value: search.tier ?? "", choices: [any, ...tiers] })}
${select({
  name: "state",
  label: "State",
  value: search.state ?? "",
  choices: [any, ...["active", "suspended"].map((value) => ({ value, label: value }))],
})}
<button>Search</button></form>
${table({
  caption: "Tenants in order of name",
  none: "No tenant matches.",
  columns: [
    { title: "Name" },
    { title: "Tier" },
    { title: "State" },
    { title: "Created" },
    { title: "Id" },
  ],
  rows: found.map((tenant) => [
    html`<a href="${tenantHref(tenant)}">${named(tenant.name)}</a>`,
    tenant.tier,
    tenantState(tenant.active),
    moment(tenant.createdAt),
    html`<code>${tenant.id}</code>`,
  ]),
})}
<p class="pages">${pages}</p>`,
  });
}

const trail = [{ title: "Tenants", href: "/ui/tenants" }];

/** The form that makes one. */
export function newTenantPage(
  viewer: Viewer,
  values: { name?: string; tier?: string } = {},
  errors: Errors = {},
): Html {
  return page({
    title: "New tenant",
    viewer,
    place: "tenants",
    trail,
    body: html`${complaint(errors)}
<form class="card narrow" method="post" action="/ui/tenants">
${input(
  {
    name: "name",
    label: "Name",
    value: values.name ?? "",
    required: true,
    maxlength: 63,
    hint: "Letters, digits, dots, - and _. It never changes.",
  },
  errors,
)}
${select(
  {
    name: "tier",
    label: "Trust tier",
    value: values.tier ?? "standard",
    hint: "Code of an untrusted tenant runs in micro-VMs; a trusted one takes the cheaper path.",
    choices: tiers,
  },
  errors,
)}
<p class="actions"><button>Create tenant</button> <a href="/ui/tenants">Cancel</a></p></form>`,
  });
}

/** Asks once more before a tenant goes. */
export function deleteTenantPage(
  viewer: Viewer,
  tenant: Tenant,
  etag: string,
  errors: Errors = {},
): Html {
  return page({
    title: "Delete tenant",
    viewer,
    place: "tenants",
    trail: [...trail, { title: tenant.name, href: tenantHref(tenant) }],
    body: html`${complaint(errors)}
<form class="card narrow" method="post" action="${tenantHref(tenant, "/delete")}">${hidden("etag", etag)}
<p>This deletes ${named(tenant.name)} with its keys, functions, versions, snapshots and sandboxes. It cannot be undone. Records, logs and the audit log stay for their
time.</p>
<label class="check"><input type="checkbox" name="force" value="true"> End what is running, too</label>
<p class="actions"><button class="danger">Delete ${named(tenant.name)}</button> <a href="${tenantHref(tenant)}">Cancel</a></p></form>`,
  });
}

/** Tier, and the doors to suspend, resume and delete. */
export function tenantActions(
  tenant: Tenant,
  etag: string,
  isOperators: boolean,
  errors: Errors,
): Html {
  const turn = tenant.active ? "suspend" : "resume";
  return html`<div class="row">
<form class="inline" method="post" action="${tenantHref(tenant, "/tier")}">${hidden("etag", etag)}${select({ name: "tier", label: "Trust tier", value: tenant.tier, choices: tiers }, errors)}<button class="plain">Change tier</button></form>
${
  !isOperators &&
  html`<form class="inline" method="post" action="${tenantHref(tenant, `/${turn}`)}">${hidden("etag", etag)}<button class="plain">${tenant.active ? "Suspend" : "Resume"}</button></form>
<a class="button danger" href="${tenantHref(tenant, "/delete")}">Delete…</a>`
}</div>`;
}
