import type { QuotaField } from "#contracts/quota";
import type { Tenant } from "#db/tenants";
import type { QuotaUse } from "../quota/quota-use.ts";
import type { QuotaReport } from "../quota/tenant-quota.ts";
import { complaint, type Errors, hidden, input, select } from "./forms.ts";
import { type Html, html } from "./html.ts";
import { page } from "./layout.ts";
import {
  MINIMUM_CHOICES,
  NUMBERS,
  PATH_CHOICES,
  type QuotaText,
  shownValue,
  textOf,
  UNLIMITED,
} from "./quota-fields.ts";
import { table, useBar } from "./tables.ts";
import { tenantHref } from "./tenants-view.ts";
import type { Viewer } from "./viewer.ts";

/** What is used of one quota. */
function usedOf(field: QuotaField, { stored, use }: QuotaReport): Html | string {
  const used = use[field as keyof QuotaUse] ?? null;
  const row = NUMBERS.find((one) => one.field === field);
  const most = stored.quota[field];
  if (used === null || !row) return "–";
  if (typeof most !== "number") return row.shown(used);
  return useBar(used, most, `${row.shown(used)} of ${row.shown(most)}`);
}

/** Every quota of a tenant, with what is used of it. */
export function quotaTable(report: QuotaReport): Html {
  const { stored } = report;
  const source = (field: QuotaField): string => (stored.own[field] === undefined ? "plan" : "set");
  const rowOf = (field: QuotaField, label: string) => [
    label,
    usedOf(field, report),
    shownValue(field, stored.quota[field]),
    source(field),
  ];
  return table({
    caption: "What the tenant may have, and what is used of it now",
    none: "",
    columns: [
      { title: "Quota" },
      { title: "In use" },
      { title: "Limit", number: true },
      { title: "From" },
    ],
    rows: [
      ...NUMBERS.map(({ field, label }) => rowOf(field, label)),
      rowOf("paths", "Paths"),
      rowOf("minimumIsolation", "Minimum isolation"),
    ],
  });
}

/** The form that replaces a quota. `text` is what was typed when it was not taken. */
export function quotaPage(
  viewer: Viewer,
  tenant: Tenant,
  report: QuotaReport,
  etag: string,
  text: QuotaText = textOf(report.stored.own),
  errors: Errors = {},
): Html {
  const { plan } = report.stored;
  const ofPlan = (field: QuotaField) => ({
    value: "",
    label: `as the plan says: ${shownValue(field, plan[field])}`,
  });
  return page({
    title: "Change quota",
    viewer,
    place: "tenants",
    trail: [
      { title: "Tenants", href: "/ui/tenants" },
      { title: tenant.name, href: tenantHref(tenant) },
    ],
    body: html`${complaint(errors)}
<p>An empty field is what the plan of tier <em>${tenant.tier}</em> says, which stands in it; the word <em>${UNLIMITED}</em> takes a limit away. A limit below what is used now
ends nothing that runs, and refuses what is new.</p>
<form class="card" method="post" action="${tenantHref(tenant, "/quota")}">${hidden("etag", etag)}
<div class="quota">${NUMBERS.map(
      ({ field, label, unit }) =>
        html`<div class="quota-row">${input(
          {
            name: field,
            label: unit === "" ? label : `${label} (${unit})`,
            value: text[field] ?? "",
            placeholder: String(plan[field] ?? UNLIMITED),
            inputmode: "decimal",
            maxlength: 40,
          },
          errors,
        )}<div class="in-use"><span class="faint">In use</span> ${usedOf(field, report)}</div></div>`,
    )}
${select({ name: "paths", label: "Paths", value: text.paths ?? "", choices: [ofPlan("paths"), ...PATH_CHOICES] }, errors)}
${select(
  {
    name: "minimumIsolation",
    label: "Minimum isolation",
    value: text.minimumIsolation ?? "",
    choices: [ofPlan("minimumIsolation"), ...MINIMUM_CHOICES],
  },
  errors,
)}</div>
<p class="actions"><button>Save quota</button> <a href="${tenantHref(tenant)}">Cancel</a></p></form>`,
  });
}
