import type { KeySummary } from "#db/keys";
import type { Tenant } from "#db/tenants";
import type { QuotaReport } from "../quota/tenant-quota.ts";
import { complaint, type Errors } from "./forms.ts";
import { type Html, html } from "./html.ts";
import { keyTable } from "./keys-view.ts";
import { page } from "./layout.ts";
import { quotaTable } from "./quota-view.ts";
import { facts } from "./tables.ts";
import { tenantActions, tenantHref, tenantState } from "./tenants-view.ts";
import type { Viewer } from "./viewer.ts";
import { address, moment } from "./words.ts";

export interface TenantParts {
  tenant: Tenant;
  etag: string;
  /** It is the operator's own. */
  operators: boolean;
  quota: QuotaReport;
  keys: readonly KeySummary[];
  nextKey: string | undefined;
}

/** One tenant: what it is, its quota and its keys. */
export function tenantPage(
  viewer: Viewer,
  { tenant, etag, operators, quota, keys, nextKey }: TenantParts,
  said?: string,
  errors: Errors = {},
): Html {
  const to = (path: string): string => address(path, { tenant: tenant.name });
  return page({
    title: tenant.name,
    viewer,
    place: viewer.operator ? "tenants" : "overview",
    ...(viewer.operator ? { trail: [{ title: "Tenants", href: "/ui/tenants" }] } : {}),
    said,
    body: html`${complaint(errors)}
${facts([
  ["State", tenantState(tenant.active)],
  ["Trust tier", tenant.tier],
  ["Created", moment(tenant.createdAt)],
  ["Changed", moment(tenant.updatedAt)],
  ["Id", html`<code>${tenant.id}</code>`],
])}
${viewer.operator && tenantActions(tenant, etag, operators, errors)}
<p class="links">${viewer.read && html`<a href="${to("/ui/functions")}">Functions</a> <a href="${to("/ui/invocations")}">Invocations</a> <a href="${to("/ui/usage")}">Usage</a> <a href="${to("/ui/live")}">Live</a>`} ${viewer.operator && html`<a href="${to("/ui/sandboxes")}">Sandboxes</a>`} <a href="${to("/ui/audit")}">Audit log</a></p>
<section aria-labelledby="quota"><h2 id="quota">Quota</h2>
${viewer.operator && html`<p class="actions"><a class="button" href="${tenantHref(tenant, "/quota")}">Change quota</a></p>`}
${quotaTable(quota)}</section>
<section aria-labelledby="keys"><h2 id="keys">Keys</h2>
<p class="actions"><a class="button" href="${tenantHref(tenant, "/keys/new")}">New key</a></p>
${keyTable(tenant, keys, nextKey)}</section>`,
  });
}
