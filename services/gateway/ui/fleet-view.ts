import type { QueueState } from "#queue/queue-state";
import type { FleetSandboxes, LiveNode } from "../admin/fleet.ts";
import { input } from "./forms.ts";
import { type Html, html } from "./html.ts";
import { page } from "./layout.ts";
import { type Mood, named, state, table, useBar } from "./tables.ts";
import type { Viewer } from "./viewer.ts";
import { bytes, count, duration } from "./words.ts";

const mebibytes = (value: number): string => bytes(value * 1024 * 1024);

function nodeState({ draining, sandboxd }: LiveNode): Html {
  if (draining) return state("draining", "warn");
  return sandboxd ? state("takes work", "good") : state("no sandboxd", "bad");
}

/** Long, and as a rule the same in all rows, so it may take two lines. */
const nodeId = (id: string): Html => html`<code class="broken">${id}</code>`;

const numbers = (...titles: string[]) => titles.map((title) => ({ title, number: true }));
const texts = (...titles: string[]) => titles.map((title) => ({ title }));

/** Nodes as their heartbeats tell. */
export const nodesPage = (viewer: Viewer, nodes: readonly LiveNode[]): Html =>
  page({
    title: "Nodes",
    viewer,
    place: "nodes",
    body: html`<p>Nodes that have spoken within the last ten seconds.</p>
${table({
  caption: "Nodes in order of id",
  none: "No node has spoken within the last ten seconds: nothing can be called. See ./cloister doctor on the machine.",
  columns: [
    ...texts("Node", "State", "Paths", "Memory promised", "Calls at once", "Sandboxes"),
    ...numbers("Processors", "Spoke", "Up"),
    ...texts("Images", "Cgroup"),
  ],
  rows: nodes.map((node) => [
    nodeId(node.id),
    nodeState(node),
    node.kinds.join(", ") || "none",
    useBar(
      node.memoryReservedMb,
      node.memoryMb,
      `${mebibytes(node.memoryReservedMb)} of ${mebibytes(node.memoryMb)}`,
    ),
    useBar(
      node.invocations,
      node.concurrency,
      `${count(node.invocations)} of ${count(node.concurrency)}`,
    ),
    `${count(node.busy)} busy, ${count(node.warm)} warm, ${count(node.prepared)} prepared`,
    count(node.processors),
    `${duration(node.ageMs)} ago`,
    duration(Math.max(0, node.atMs - node.startedAtMs)),
    Object.keys(node.images).join(", ") || "none",
    node.cgroup ?? "–",
  ]),
})}`,
  });

/** Queues before the nodes. */
export const queuesPage = (viewer: Viewer, queues: readonly QueueState[]): Html =>
  page({
    title: "Queues",
    viewer,
    place: "queues",
    body: table({
      caption: "Queues by name",
      none: "There is no queue.",
      columns: [{ title: "Queue" }, ...numbers("Waiting", "Active", "The first has waited")],
      rows: queues.map(({ name, waiting, active, oldestWaitMs }) => [
        named(name),
        count(waiting),
        count(active),
        oldestWaitMs === undefined ? "–" : duration(oldestWaitMs),
      ]),
    }),
  });

const MOODS: Record<FleetSandboxes["sandboxes"][number]["state"], Mood> = {
  busy: "good",
  idle: "plain",
  pooled: "plain",
  prepared: "plain",
  resetting: "plain",
  ending: "warn",
};

export interface SandboxSearch {
  tenant?: string | undefined;
  function?: string | undefined;
}

/** Live sandboxes of all nodes. */
export function sandboxesPage(
  viewer: Viewer,
  found: FleetSandboxes,
  search: SandboxSearch,
  names: ReadonlyMap<string, string>,
): Html {
  const { sandboxes, total, running, silent } = found;
  const rest = total - sandboxes.length;
  return page({
    title: "Sandboxes",
    viewer,
    place: "sandboxes",
    body: html`<form class="search" method="get" action="/ui/sandboxes" role="search">
${input({ name: "tenant", label: "Tenant, by name or id", value: search.tenant ?? "", maxlength: 63 })}
${input({ name: "function", label: "Function of that tenant", value: search.function ?? "", maxlength: 63 })}
<button>Show</button></form>
<p>${count(total)} sandboxes, ${count(running)} calls under way${rest > 0 && html`; ${count(rest)} are not listed`}.</p>
${silent.length > 0 && html`<p class="notice bad" role="alert">These nodes did not answer within a second: ${silent.join(", ")}.</p>`}
${table({
  caption: "Live sandboxes, as the nodes tell at this moment",
  none: "No sandbox matches.",
  columns: [
    ...texts("Sandbox", "State", "Path", "Runtime", "Began", "Tenant", "Function"),
    ...numbers("Age", "Peak memory", "Calls", "Now"),
    { title: "Node" },
  ],
  rows: sandboxes.map((one) => [
    html`<code>${one.id}</code>`,
    state(one.state, MOODS[one.state]),
    one.path,
    one.runtime,
    one.start ?? "–",
    one.tenantId === undefined
      ? html`<span class="faint">nobody's</span>`
      : html`<a href="/ui/tenants/${one.tenantId}">${named(names.get(one.tenantId) ?? one.tenantId)}</a>`,
    one.function === undefined ? "–" : named(`${one.function}@${one.version ?? "–"}`),
    one.ageMs === undefined ? "–" : duration(one.ageMs),
    `${one.memoryPeakBytes === undefined ? "–" : bytes(one.memoryPeakBytes)} of ${mebibytes(one.memoryMb)}`,
    count(one.invocations),
    count(one.active),
    nodeId(one.node),
  ]),
})}`,
  });
}
