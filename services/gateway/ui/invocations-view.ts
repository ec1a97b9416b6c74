import type { InvocationRecord, InvocationStatus, LogEntry, Phases } from "#contracts/invocation";
import type { RecentInvocation } from "#db/recent-invocations";
import { figure } from "#report/markup";
import { stackedBars } from "#report/plots";
import { type Html, html, raw } from "./html.ts";
import { page } from "./layout.ts";
import { facts, type Mood, named, state, table } from "./tables.ts";
import type { Viewer } from "./viewer.ts";
import { address, bytes, count, duration, moment } from "./words.ts";

const MOODS: Partial<Record<InvocationStatus, Mood>> = { ok: "good", cancelled: "plain" };

/** How a call ended, in words. */
export const ended = ({
  status,
  httpStatus,
  errorCode,
}: Pick<RecentInvocation, "status" | "httpStatus" | "errorCode">): Html =>
  html`<span class="nowrap">${state(errorCode ?? status.replaceAll("_", " "), MOODS[status] ?? "bad")}${httpStatus !== undefined && html` <span class="faint">${httpStatus}</span>`}</span>`;

const ms = (value: number | undefined): string =>
  value === undefined ? "–" : `${figure(value)} ms`;

/** Rows of invocations; `tenant` is named where they are not of the reader's own. */
export const invocationTable = (
  found: readonly RecentInvocation[],
  {
    tenant,
    names,
  }: { tenant?: string | undefined; names?: ReadonlyMap<string, string> | undefined },
): Html =>
  table({
    caption: "Calls that have ended, newest first",
    none: "No call within the last seven days.",
    columns: [
      { title: "Accepted" },
      { title: "Ended" },
      ...(names ? [{ title: "Tenant" }] : []),
      ...["Function", "Path", "Start"].map((title) => ({ title })),
      ...["Queue", "Boot", "Handler", "Whole"].map((title) => ({ title, number: true })),
    ],
    rows: found.map((one) => [
      html`<a href="${address(`/ui/invocations/${one.id}`, { tenant: names ? one.tenantId : tenant })}">${moment(one.acceptedAt)}</a>`,
      ended(one),
      ...(names ? [named(names.get(one.tenantId) ?? one.tenantId)] : []),
      one.function === undefined ? html`<span class="faint">gone</span>` : named(one.function),
      one.path ?? "–",
      one.start ?? "–",
      ms(one.phases.queue_ms),
      ms(one.phases.acquire_ms),
      ms(one.phases.handler_ms),
      ms(one.durationMs),
    ]),
  });

export interface InvocationList {
  found: readonly RecentInvocation[];
  /** Whose they are; all tenants' when absent. */
  tenant: { name: string; own: boolean } | undefined;
  names: ReadonlyMap<string, string> | undefined;
  /** Where older ones begin, ms. */
  next: number | undefined;
}

/** Calls that have ended. */
export function invocationsPage(
  viewer: Viewer,
  { found, tenant, names, next }: InvocationList,
): Html {
  const shown = tenant && !tenant.own ? tenant.name : undefined;
  return page({
    title: shown === undefined ? "Invocations" : `Invocations of ${shown}`,
    viewer,
    place: "invocations",
    body: html`${viewer.operator && html`<p class="links"><a href="/ui/invocations"${tenant === undefined || !tenant.own ? false : html` aria-current="true"`}>Own tenant</a> <a href="/ui/invocations?tenant=*"${tenant === undefined && html` aria-current="true"`}>All tenants</a></p>`}
<p>Boot is the time until a sandbox could serve. Records are written in batches: a call is here within a second of its end.</p>
${invocationTable(found, { tenant: shown, names })}
${next !== undefined && html`<p class="pages"><a rel="next" href="${address("/ui/invocations", { tenant: names ? "*" : shown, before: next })}">Older calls</a></p>`}`,
  });
}

/** Phases of the acquisition are parts of it. */
const PHASES: readonly [keyof Phases, string][] = [
  ["queue_ms", "in the queue"],
  ["place_ms", "placement"],
  ["acquire_ms", "getting a sandbox"],
  ["create_ms", "· made"],
  ["runtime_ms", "· runtime booted"],
  ["restore_ms", "· brought back from its snapshot"],
  ["renew_ms", "· renewed by runner and hooks"],
  ["reset_ms", "· put back"],
  ["assign_ms", "· given its function"],
  ["init_ms", "function loaded"],
  ["handler_ms", "handler, to the head of its answer"],
  ["reply_ms", "rest of the answer"],
];

/** Phases that follow each other, as one bar. */
function phaseBar({ phases }: InvocationRecord): Html {
  const whole = PHASES.filter(([phase, words]) => !words.startsWith("·") && phases[phase]);
  if (whole.length === 0) return html``;
  const text = {
    id: "phase-bar",
    title: "From its acceptance to its end",
    caption: "Phases one after the other; the table has their parts, too.",
  };
  // Drawn and escaped by the library.
  return html`<div class="drawn">${raw(
    stackedBars(text, "ms", Object.fromEntries(whole), [
      {
        name: "this call",
        parts: Object.fromEntries(whole.map(([phase]) => [phase, phases[phase]])),
      },
    ]),
  )}</div>`;
}

/** All that is known of one call. */
export function invocationPage(
  viewer: Viewer,
  record: InvocationRecord,
  name: string | undefined,
  logs: readonly LogEntry[],
): Html {
  const { exits } = record;
  return page({
    title: "Invocation",
    viewer,
    place: "invocations",
    trail: [{ title: "Invocations", href: "/ui/invocations" }],
    body: html`<p><code>${record.id}</code></p>
${facts([
  ["Ended", ended(record)],
  ["Function", name === undefined ? html`<code>${record.functionId}</code>` : named(name)],
  ["Path", record.path ?? "–"],
  ["Start", record.start ?? "–"],
  ["Accepted", moment(new Date(record.acceptedAtMs))],
  ["Whole", duration(record.durationMs)],
  ["Billed", duration(record.billedMs)],
  ["Processor", record.cpuMs === undefined ? "–" : duration(record.cpuMs)],
  [
    "Memory",
    `${record.memoryPeakBytes === undefined ? "–" : bytes(record.memoryPeakBytes)} of ${count(record.memoryMb)} MiB`,
  ],
  ["Request", bytes(record.requestBytes)],
  ["Answer", bytes(record.responseBytes)],
  ["Node", html`<code>${record.nodeId}</code>`],
  ["Sandbox", record.sandboxId === undefined ? "–" : html`<code>${record.sandboxId}</code>`],
])}
<section aria-labelledby="why"><h2 id="why">Why on this path</h2><ol>${record.placementReasons.map((reason) => html`<li>${reason}</li>`)}</ol></section>
<section aria-labelledby="phases"><h2 id="phases">Where its time went</h2>
${phaseBar(record)}
${table({
  caption: "Phases in their order",
  none: "It did not run.",
  columns: [{ title: "Phase" }, { title: "Time", number: true }],
  rows: PHASES.flatMap(([phase, words]) => {
    const value = record.phases[phase];
    return value === undefined ? [] : [[words, ms(value)]];
  }),
})}</section>
${
  exits &&
  html`<section aria-labelledby="exits"><h2 id="exits">Exits of its micro-VM</h2>${table({
    caption: "How often its virtual processors came back to the monitor",
    none: "",
    columns: [{ title: "Reason" }, { title: "Times", number: true }],
    rows: Object.entries(exits).map(([reason, times]) => [
      reason.replaceAll("_", " "),
      count(times),
    ]),
  })}</section>`
}
<section aria-labelledby="logs"><h2 id="logs">What it printed</h2>${
      logs.length === 0
        ? html`<p class="none">Nothing.</p>`
        : html`<pre class="logs" tabindex="0" aria-label="Log lines">${logs.map(({ stream, text }) => html`<span class="faint">${stream.padEnd(7)}</span>${text.trimEnd()}\n`)}</pre>`
    }</section>`,
  });
}
