import { figure } from "#report/markup";
import type { TableColumn } from "#report/page";
import type { Ratio } from "./comparison.ts";
import type { Interval } from "./quantile-interval.ts";
import type { LoadReport } from "./report.ts";

const right = (title: string): TableColumn => ({ title, right: true });

export interface Rows {
  columns: TableColumn[];
  rows: string[][];
}

/** The same tables for the terminal and for the page. */
export function groupRows({ groups, targets }: LoadReport): Rows {
  const several = targets.length > 1;
  const tagged = groups.some(({ tag }) => tag !== null);
  return {
    columns: [
      ...(several ? [{ title: "TARGET" }] : []),
      { title: "STREAM" },
      ...(tagged ? [{ title: "TAG" }] : []),
      { title: "PATH" },
      { title: "START" },
      ...["ok", "refused", "failed", "p50 ms", "p90 ms", "p99 ms", "max ms", "first byte p50"].map(
        right,
      ),
    ],
    rows: groups.map((one) => [
      ...(several ? [one.target] : []),
      one.stream,
      ...(tagged ? [one.tag ?? "-"] : []),
      one.path ?? "-",
      one.start ?? "-",
      ...[one.ok, one.refused, one.failed].map(String),
      ...[one.p50_ms, one.p90_ms, one.p99_ms, one.max_ms, one.first_byte_p50_ms].map(figure),
    ]),
  };
}

export const thresholdRows = ({ thresholds }: LoadReport): Rows => ({
  columns: [{ title: "THRESHOLD" }, right("measured"), { title: "" }],
  rows: thresholds.map(({ rule, value, crossed }) => [
    rule,
    figure(value),
    crossed ? "CROSSED" : "kept",
  ]),
});

const interval = (found: Interval | null): string =>
  found ? `${figure(found.value)} (${figure(found.low)} to ${figure(found.high)})` : "-";

export const ratioRows = (ratios: readonly Ratio[]): Rows => ({
  columns: [{ title: "OF" }, { title: "WHAT" }, right("n"), right("p50 ratio"), right("p99 ratio")],
  rows: ratios.map(({ name, a, b, n_a, n_b, p50, p99 }) => [
    name,
    `${b} : ${a}`,
    `${n_b} : ${n_a}`,
    interval(p50),
    interval(p99),
  ]),
});

export const stepRows = ({ knee }: LoadReport): Rows => ({
  columns: [
    ...["offered /s", "answered /s", "dropped", "failed", "p50 ms", "p99 ms"].map(right),
    { title: "" },
  ],
  rows: (knee?.steps ?? []).map((step) => [
    figure(step.offered_per_s),
    figure(step.answered_per_s),
    String(step.dropped),
    String(step.failed),
    figure(step.p50_ms),
    figure(step.p99_ms),
    step.saturated ? "saturated" : "kept up",
  ]),
});

/** What one must know to read the numbers, most important first. */
export function sentences(report: LoadReport): string[] {
  const { early, totals, knee, late_p99_ms: late, generator, host } = report;
  const said: string[] = [];
  if (early) said.push(earlySentence(report));
  said.push(
    `${totals.sent} requests in ${figure(report.elapsed_ms / 1000)} s: ${totals.ok} right, ${totals.refused} refused, ${totals.failed} failed; ${totals.dropped} more were dropped.`,
  );
  if (knee) said.push(kneeSentence(report));
  if (late !== null && late > 5)
    said.push(
      `The generator itself was late: p99 ${figure(late)} ms. It shares the machine with the service, so read the times with that in mind.`,
    );
  said.push(
    `Sent by ${generator.name} ${generator.version} over loopback, from ${host.cores} cores that the service shares. Times run from sending to the last byte.`,
  );
  return said;
}

export function earlySentence({ early }: LoadReport): string {
  const at = `after ${figure((early?.atMs ?? 0) / 1000)} s`;
  if (early?.why === "service-lost") return `The service could not be reached any more ${at}.`;
  if (early?.why === "k6-ended")
    return `k6 ended ${at} of itself${early.said ? `: ${early.said}` : "."}`;
  if (early?.why === "interrupted") return `The run was interrupted ${at}.`;
  return `The run ended ${at} because it had sent as many requests as one may.`;
}

function kneeSentence({ knee }: LoadReport): string {
  if (!knee || knee.rate_per_s === null)
    return "Not even the first step was kept up with: begin lower with --rate.";
  return knee.found
    ? `The knee: ${figure(knee.rate_per_s)} requests/s were kept up with, the next step was not.`
    : `No knee up to ${figure(knee.rate_per_s)} requests/s: go higher with --rate.`;
}

/** A group in few words, for a legend. */
export const groupName = (
  { target, stream, tag, path, start, ok }: LoadReport["groups"][number],
  several: boolean,
): string =>
  [...(several ? [target] : []), stream, tag, path, start, `(${ok})`]
    .filter((word) => word !== null)
    .join(" ");
