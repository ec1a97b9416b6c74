import type { AuditEntry, AuditState } from "#db/audit";
import { input } from "./forms.ts";
import { type Html, html } from "./html.ts";
import { page } from "./layout.ts";
import { named, table } from "./tables.ts";
import type { Viewer } from "./viewer.ts";
import { address, moment } from "./words.ts";

export interface AuditSearch {
  tenant?: string | undefined;
  action?: string | undefined;
  key?: string | undefined;
}

const written = (value: unknown): string => {
  const text =
    value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value);
  return text.length > 120 ? `${text.slice(0, 119)}…` : text;
};

/** What became different, field by field. */
function changes(before: AuditState = {}, after: AuditState = {}): Html {
  const fields = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const differing = fields.filter(
    (field) => JSON.stringify(before[field]) !== JSON.stringify(after[field]),
  );
  return html`<ul class="plain">${differing.map(
    (field) =>
      html`<li>${field}: ${field in before && html`<bdi>${written(before[field])}</bdi> → `}<bdi>${written(after[field])}</bdi></li>`,
  )}</ul>`;
}

/** What admins did, newest first. */
export function auditPage(
  viewer: Viewer,
  entries: readonly AuditEntry[],
  names: ReadonlyMap<string, string>,
  { search, next }: { search: AuditSearch; next: number | undefined },
): Html {
  const tenantOf = (id: string): Html =>
    html`<a href="${address("/ui/audit", { tenant: id })}">${named(names.get(id) ?? id)}</a>`;
  return page({
    title: "Audit log",
    viewer,
    place: "audit",
    body: html`<form class="search" method="get" action="/ui/audit" role="search">
${viewer.operator && input({ name: "tenant", label: "Tenant, by name or id", value: search.tenant ?? "", maxlength: 63 })}
${input({ name: "action", label: "Action, e.g. key.create", value: search.action ?? "", maxlength: 60 })}
${input({ name: "key", label: "Id of the key used", value: search.key ?? "", maxlength: 60 })}
<button>Show</button></form>
${table({
  caption: "What was changed, newest first",
  none: "Nothing matches.",
  columns: ["When", "What", "Tenant", "Of", "Change", "By key", "From"].map((title) => ({ title })),
  rows: entries.map((entry) => [
    moment(entry.at),
    entry.action,
    tenantOf(entry.tenantId),
    entry.subject === entry.tenantId ? "itself" : html`<code>${entry.subject}</code>`,
    changes(entry.before, entry.after),
    html`<code>${entry.keyId}</code>`,
    html`${entry.request.address ?? "–"}`,
  ]),
})}
${next !== undefined && html`<p class="pages"><a rel="next" href="${address("/ui/audit", { ...search, before: next })}">Older entries</a></p>`}`,
  });
}
