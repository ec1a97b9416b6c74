import { z } from "zod";
import {
  type Plan,
  partsOf,
  type Scenario,
  type Settings,
  type Threshold,
} from "#loadtests/lib/plan";
import { ascending, percentile } from "#report/statistics";
import { type HostFacts, hostFacts } from "../host/facts.ts";
import { compareRuns, compareTargets, compareWithin, type Ratio } from "./comparison.ts";
import { type Group, groupsOf, type OverTime, overTime, rounded } from "./groups.ts";
import { findKnee, type Knee } from "./knee.ts";
import type { EarlyEnd, Run, Target } from "./sample.ts";
import { judge, type ThresholdResult } from "./thresholds.ts";

/** What sends the requests. */
export const GENERATOR = "k6";

/** What a run came to, as it is kept. Times in ms. */
export interface LoadReport {
  schema: 1;
  scenario: string;
  shows: string;
  beganAt: string;
  elapsed_ms: number;
  settings: Settings;
  /** What sent the requests. Numbers of different generators are not comparable. */
  generator: { name: string; version: string };
  host: HostFacts;
  /** Functions were called `prefix` and their name in the scenario; `tenants` are ids. By these the service's records of the run are found. */
  targets: readonly Target[];
  totals: {
    sent: number;
    ok: number;
    refused: number;
    failed: number;
    dropped: number;
    ok_per_s: number;
    /** As k6 counts them: with heads, and with those of what it deployed. */
    bytes_in: number;
    bytes_out: number;
  };
  /** How late k6 itself was with requests that were due; null where no open stream went without drops. */
  late_p50_ms: number | null;
  late_p99_ms: number | null;
  groups: Group[];
  failures: { reason: string; count: number; first_at_ms: number }[];
  thresholds: ThresholdResult[];
  over_time: OverTime[];
  knee: Knee | null;
  /** Within this run, interleaved or one after the other as the scenario says. */
  versus: Ratio[];
  baseline: { beganAt: string; ratios: Ratio[] } | null;
  early: EarlyEnd | null;
}

export interface ReportInput {
  scenario: Scenario;
  settings: Settings;
  plan: Plan;
  thresholds: readonly Threshold[];
  generator: { name: string; version: string };
  run: Run;
  baseline?: Baseline;
}

export function reportOf(input: ReportInput): LoadReport {
  const { scenario, settings, plan, run } = input;
  const { samples, dropped, targets } = run;
  const count = (outcome: string): number =>
    samples.filter((sample) => sample.outcome === outcome).length;
  const late = ascending(latenessOf(plan, run));
  const ok = count("ok");
  const groups = groupsOf(samples);
  const [first, second] = targets;
  return {
    schema: 1,
    scenario: scenario.name,
    shows: scenario.shows,
    beganAt: run.beganAt.toISOString(),
    elapsed_ms: Math.round(run.elapsedMs),
    settings,
    generator: input.generator,
    host: hostFacts(),
    targets,
    totals: {
      sent: samples.length,
      ok,
      refused: count("refused"),
      failed: count("failed"),
      dropped: [...dropped.values()].reduce((sum, count) => sum + count, 0),
      ok_per_s: run.elapsedMs > 0 ? Math.round((ok / run.elapsedMs) * 1e5) / 100 : 0,
      bytes_in: run.bytes.received,
      bytes_out: run.bytes.sent,
    },
    late_p50_ms: rounded(percentile(late, 0.5)),
    late_p99_ms: rounded(percentile(late, 0.99)),
    groups,
    failures: failuresOf(run),
    thresholds: input.thresholds.map((threshold) => judge(threshold, run)),
    over_time: overTime(samples, run.elapsedMs),
    knee: plan.findKnee ? kneeOf(plan, run) : null,
    versus: [
      ...(plan.versus ? compareWithin(groups, plan.versus) : []),
      ...(first && second ? compareTargets(groups, first.label, second.label) : []),
    ],
    baseline: input.baseline
      ? {
          beganAt: input.baseline.beganAt,
          ratios: compareRuns(input.baseline.groups, groups),
        }
      : null,
    early: run.early ? { ...run.early, atMs: Math.round(run.early.atMs) } : null,
  };
}

/** Failures by what was wrong, the most frequent first. */
function failuresOf({ samples }: Run): LoadReport["failures"] {
  const found = new Map<string, { reason: string; count: number; first_at_ms: number }>();
  for (const { outcome, reason, atMs } of samples) {
    if (outcome !== "failed" || reason === null) continue;
    const known = found.get(reason) ?? { reason, count: 0, first_at_ms: Math.round(atMs) };
    known.count += 1;
    known.first_at_ms = Math.min(known.first_at_ms, Math.round(atMs));
    found.set(reason, known);
  }
  return [...found.values()].sort((a, b) => b.count - a.count);
}

/** Of streams that dropped nothing: which of its requests one is that comes after a drop, nobody knows. */
function latenessOf({ streams }: Plan, { samples, dropped }: Run): number[] {
  const whole = streams.filter((stream) => partsOf(stream).every((part) => !dropped.get(part)));
  const parts = new Set(whole.flatMap(partsOf));
  return samples.flatMap(({ stream, lateMs }) =>
    lateMs === null || !parts.has(stream) ? [] : Math.max(0, lateMs),
  );
}

/** The steps of rising load. Those that were never begun are left out. */
function kneeOf({ streams }: Plan, run: Run): Knee {
  const steps = streams.flatMap(({ arrival, startMs }) => {
    if (arrival.kind !== "rate") return [];
    let beginsMs = startMs;
    return arrival.steps.flatMap(({ name, perSecond, durationMs }) => {
      const beganMs = beginsMs;
      beginsMs += durationMs;
      if (run.elapsedMs < beganMs) return [];
      const mine = run.samples.filter(({ stream }) => stream === name);
      const right = mine.filter(({ outcome }) => outcome === "ok");
      const times = ascending(right.map(({ totalMs }) => totalMs));
      return [
        {
          stream: name,
          seconds: durationMs / 1000,
          offered_per_s: rounded(perSecond) ?? 0,
          answered_per_s: rounded((right.length * 1000) / durationMs) ?? 0,
          dropped: run.dropped.get(name) ?? 0,
          failed: mine.filter(({ outcome }) => outcome === "failed").length,
          p50_ms: rounded(percentile(times, 0.5)),
          p99_ms: rounded(percentile(times, 0.99)),
        },
      ];
    });
  });
  return findKnee(steps);
}

const nullableText = z.string().nullable();
const nullableMs = z.number().nullable();

/** What is read of an earlier report. */
const baselineSchema = z.object({
  schema: z.literal(1),
  scenario: z.string(),
  beganAt: z.string(),
  generator: z.object({ name: z.string(), version: z.string() }),
  groups: z.array(
    z.object({
      target: z.string(),
      stream: z.string(),
      tag: nullableText,
      path: nullableText,
      start: nullableText,
      ok: z.number(),
      refused: z.number(),
      failed: z.number(),
      p50_ms: nullableMs,
      p90_ms: nullableMs,
      p99_ms: nullableMs,
      max_ms: nullableMs,
      first_byte_p50_ms: nullableMs,
      first_byte_p99_ms: nullableMs,
      quantiles_ms: z.array(z.number()),
    }),
  ),
});
export type Baseline = z.infer<typeof baselineSchema>;

/** An earlier report; undefined when it is none. */
export function parseBaseline(text: string): Baseline | undefined {
  try {
    return baselineSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
