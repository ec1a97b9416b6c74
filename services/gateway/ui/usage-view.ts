import { CPU_US_PER_SECOND, MIB_MS_PER_GB_SECOND } from "#contracts/usage";
import type { FunctionUsage, UsageHour, UsageTotals, Used } from "#db/usage";
import { figure } from "#report/markup";
import { type Html, html } from "./html.ts";
import { page } from "./layout.ts";
import { facts, named, table } from "./tables.ts";
import type { Viewer } from "./viewer.ts";
import { bytes, count, moment } from "./words.ts";

export interface UsageParts {
  tenant: { name: string; own: boolean };
  totals: UsageTotals;
  /** The last ones, the newest first. */
  hours: readonly UsageHour[];
  functions: readonly FunctionUsage[];
}

const gbSeconds = ({ mibMs }: Used): number => mibMs / MIB_MS_PER_GB_SECOND;
const numbers = (used: Used): string[] => [
  count(used.invocations),
  figure(gbSeconds(used)),
  figure(used.cpuUs / CPU_US_PER_SECOND),
  bytes(used.egressBytes),
];
const COLUMNS = ["Calls", "GB-seconds", "CPU-seconds", "Egress"].map((title) => ({
  title,
  number: true,
}));

const counts = (of: Readonly<Record<string, number>>): string =>
  Object.entries(of)
    .map(([what, times]) => `${count(times)} ${what.replaceAll("_", " ")}`)
    .join(", ") || "none";

/** A part of the most there is, as a bar; the number stands beside it. */
const barOf = (value: number, most: number): Html =>
  html`<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="part" width="${most > 0 ? Math.round((value / most) * 1000) / 10 : 0}" height="8"/></svg>`;

/** What a tenant has used this month, by hour and by function. */
export function usagePage(viewer: Viewer, { tenant, totals, hours, functions }: UsageParts): Html {
  const most = Math.max(...hours.map(gbSeconds));
  return page({
    title: tenant.own ? "Usage" : `Usage of ${tenant.name}`,
    viewer,
    place: "usage",
    body: html`<section aria-labelledby="month"><h2 id="month">This month</h2>
${facts([
  ["Calls", count(totals.invocations)],
  ["GB-seconds", figure(gbSeconds(totals))],
  ["CPU-seconds", figure(totals.cpuUs / CPU_US_PER_SECOND)],
  ["Egress", bytes(totals.egressBytes)],
  ["Stored now", bytes(totals.storageBytes)],
  ["By path", counts(totals.byPath)],
  ["By how they ended", counts(totals.byStatus)],
])}</section>
<section aria-labelledby="functions"><h2 id="functions">By function</h2>${table({
      caption: "This month, those that used most first",
      none: "No call this month.",
      columns: [{ title: "Function" }, ...COLUMNS],
      rows: functions.map((one) => [
        one.name === undefined ? html`<code>${one.functionId}</code>` : named(one.name),
        ...numbers(one),
      ]),
    })}</section>
<section aria-labelledby="hours"><h2 id="hours">By hour</h2>${table({
      caption: "The last two days, the newest hour first; hours without use are left out",
      none: "No use within the last two days.",
      columns: [
        { title: "Hour" },
        { title: "GB-seconds beside other hours" },
        ...COLUMNS,
        { title: "Stored", number: true },
      ],
      rows: hours
        .filter(({ invocations }) => invocations > 0)
        .map((hour) => [
          moment(new Date(hour.hourMs)),
          barOf(gbSeconds(hour), most),
          ...numbers(hour),
          bytes(hour.storageBytes),
        ]),
    })}</section>`,
  });
}
