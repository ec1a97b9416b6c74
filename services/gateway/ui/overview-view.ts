import type { Tenant } from "#db/tenants";
import type { NodeHeartbeat } from "#queue/nodes";
import type { QueueState } from "#queue/queue-state";
import type { QuotaReport } from "../quota/tenant-quota.ts";
import { type Html, html } from "./html.ts";
import { page } from "./layout.ts";
import { quotaTable } from "./quota-view.ts";
import { facts, named, state } from "./tables.ts";
import { tenantHref, tenantState } from "./tenants-view.ts";
import type { Viewer } from "./viewer.ts";
import { count, duration } from "./words.ts";

export interface Fleet {
  nodes: readonly NodeHeartbeat[];
  queues: readonly QueueState[];
}

export interface OverviewParts {
  tenant: Tenant;
  quota: QuotaReport;
  /** What the operator sees beside its own; undefined while Redis is away. */
  fleet?: Fleet | undefined;
}

const sumOf = <T>(list: readonly T[], of: (one: T) => number): number =>
  list.reduce((sum, one) => sum + of(one), 0);

function fleetFacts(fleet: Fleet | undefined): Html {
  if (!fleet)
    return html`<p class="notice bad" role="alert">Redis cannot be reached: nothing is known of nodes and queues, and nothing can be called.</p>`;
  const { nodes, queues } = fleet;
  const able = nodes.filter(({ sandboxd, draining }) => sandboxd && !draining).length;
  const waiting = sumOf(queues, (queue) => queue.waiting);
  const oldest = Math.max(0, ...queues.map(({ oldestWaitMs = 0 }) => oldestWaitMs));
  return facts([
    [
      "Nodes",
      html`<a href="/ui/nodes">${count(nodes.length)}</a>, ${able === nodes.length && able > 0 ? state("all take work", "good") : state(`${count(able)} take work`, able > 0 ? "warn" : "bad")}`,
    ],
    ["Calls under way", count(sumOf(nodes, ({ invocations }) => invocations))],
    [
      "Waiting in queues",
      html`<a href="/ui/queues">${count(waiting)}</a>${waiting > 0 && html`, the first for ${duration(oldest)}`}`,
    ],
    [
      "Sandboxes",
      html`<a href="/ui/sandboxes">${count(sumOf(nodes, ({ warm, busy, prepared }) => warm + busy + prepared))}</a>: ${count(sumOf(nodes, ({ busy }) => busy))} busy, ${count(sumOf(nodes, ({ warm }) => warm))} warm, ${count(sumOf(nodes, ({ prepared }) => prepared))} prepared`,
    ],
  ]);
}

/** What one sees first: how the service stands, and how one's own tenant does. */
export function overviewPage(viewer: Viewer, { tenant, quota, fleet }: OverviewParts): Html {
  return page({
    title: "Overview",
    viewer,
    place: "overview",
    body: html`${viewer.operator && html`<section aria-labelledby="fleet"><h2 id="fleet">The service</h2>${fleetFacts(fleet)}</section>`}
<section aria-labelledby="own"><h2 id="own">Tenant ${named(tenant.name)}</h2>
${facts([
  ["State", tenantState(tenant.active)],
  ["Trust tier", tenant.tier],
])}
<p class="links">${viewer.read && html`<a href="/ui/functions">Functions</a> <a href="/ui/invocations">Invocations</a> <a href="/ui/usage">Usage</a> <a href="/ui/live">Live</a>`} ${viewer.admin && html`<a href="${tenantHref(tenant)}">Keys and quota</a>`}</p>
${quotaTable(quota)}</section>`,
  });
}
