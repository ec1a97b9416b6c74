import { type Threshold, TIME_MEASURES } from "#loadtests/lib/plan";
import { ascending, percentile } from "#report/statistics";
import { rounded } from "./groups.ts";
import type { Run } from "./sample.ts";

export interface ThresholdResult {
  /** As a sentence: `p99_ms of steady at most 250`. */
  rule: string;
  /** Null when nothing was measured, which crosses a threshold on times. */
  value: number | null;
  crossed: boolean;
}

export const isTimed = ({ measure }: Threshold): boolean =>
  (TIME_MEASURES as readonly string[]).includes(measure);

export function judge(threshold: Threshold, run: Run): ThresholdResult {
  const { most, least } = threshold;
  const value = rounded(measured(threshold, run));
  const crossed =
    value === null ||
    (most !== undefined && value > most) ||
    (least !== undefined && value < least);
  return { rule: ruleOf(threshold), value, crossed };
}

function ruleOf({ measure, stream, part, most, least }: Threshold): string {
  const bounds = [
    ...(most === undefined ? [] : [`at most ${most}`]),
    ...(least === undefined ? [] : [`at least ${least}`]),
  ];
  const what = part ? `part ${measure}` : measure;
  return `${what}${stream === undefined ? "" : ` of ${stream}`} ${bounds.join(" and ")}`;
}

function measured({ measure, stream, part }: Threshold, run: Run): number | null {
  const mine = (one: { stream: string }): boolean => stream === undefined || one.stream === stream;
  const samples = run.samples.filter(mine);
  const dropped = [...run.dropped]
    .filter(([name]) => mine({ stream: name }))
    .reduce((sum, [, count]) => sum + count, 0);
  const sorted = (times: (number | null)[]): number[] =>
    ascending(times.filter((time) => time !== null));
  const right = samples.filter(({ outcome }) => outcome === "ok");
  const totals = (at: number): number | null =>
    percentile(sorted(right.map(({ totalMs }) => totalMs)), at);
  const counted = (count: number, of: number): number | null =>
    part ? (of === 0 ? null : count / of) : count;
  switch (measure) {
    case "p50_ms":
      return totals(0.5);
    case "p99_ms":
      return totals(0.99);
    case "first_byte_p99_ms":
      return percentile(sorted(right.map(({ firstByteMs }) => firstByteMs)), 0.99);
    case "p99_over_p50": {
      const [middle, high] = [totals(0.5), totals(0.99)];
      return middle === null || high === null || middle === 0 ? null : high / middle;
    }
    case "dropped":
      return counted(dropped, samples.length + dropped);
    default:
      return counted(samples.filter(({ outcome }) => outcome === measure).length, samples.length);
  }
}
