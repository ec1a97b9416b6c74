import { z } from "zod";
import { stagesMs } from "#loadtests/lib/arrivals";
import type { Plan, Scenario, Settings, Threshold } from "#loadtests/lib/plan";
import { ascending, percentile } from "#report/statistics";
import { type HostFacts, hostFacts } from "../host/facts.ts";
import { compareRuns, compareTargets, compareWithin, type Ratio } from "./comparison.ts";
import { type Group, groupsOf, type OverTime, overTime, rounded } from "./groups.ts";
import { findKnee, type Knee } from "./knee.ts";
import type { EarlyEnd, Run } from "./sample.ts";
import { judge, type ThresholdResult } from "./thresholds.ts";

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
  targets: { label: string; url: string; prefix: string; tenants: readonly string[] }[];
  totals: {
    sent: number;
    ok: number;
    refused: number;
    failed: number;
    dropped: number;
    ok_per_s: number;
    bytes_in: number;
    bytes_out: number;
  };
  /** How late the generator itself was with requests that were due; null without open streams. */
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
  targets: LoadReport["targets"];
  generator: { name: string; version: string };
  beganAt: Date;
  run: Run;
  baseline?: Baseline;
}

export function reportOf(input: ReportInput): LoadReport {
  const { scenario, settings, plan, targets, run } = input;
  const { samples, dropped } = run;
  const count = (outcome: string): number =>
    samples.filter((sample) => sample.outcome === outcome).length;
  const sum = (of: "bytesIn" | "bytesOut"): number =>
    samples.reduce((all, sample) => all + sample[of], 0);
  const late = ascending(run.lateMs);
  const ok = count("ok");
  const groups = groupsOf(samples);
  const [first, second] = targets;
  return {
    schema: 1,
    scenario: scenario.name,
    shows: scenario.shows,
    beganAt: input.beganAt.toISOString(),
    elapsed_ms: Math.round(run.elapsedMs),
    settings,
    generator: input.generator,
    host: hostFacts(),
    targets: targets.map(({ label, url, prefix, tenants }) => ({ label, url, prefix, tenants })),
    totals: {
      sent: samples.length,
      ok,
      refused: count("refused"),
      failed: count("failed"),
      dropped: dropped.length,
      ok_per_s: run.elapsedMs > 0 ? Math.round((ok / run.elapsedMs) * 1e5) / 100 : 0,
      bytes_in: sum("bytesIn"),
      bytes_out: sum("bytesOut"),
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
  for (const { outcome, reason = "unknown", atMs } of samples) {
    if (outcome !== "failed") continue;
    const known = found.get(reason) ?? { reason, count: 0, first_at_ms: Math.round(atMs) };
    known.count += 1;
    known.first_at_ms = Math.min(known.first_at_ms, Math.round(atMs));
    found.set(reason, known);
  }
  return [...found.values()].sort((a, b) => b.count - a.count);
}

/** Each open stream is a step, as the plan orders them. Steps that were never begun are left out. */
function kneeOf(plan: Plan, run: Run): Knee {
  const steps = plan.streams.flatMap(({ name, arrival, startMs }) => {
    if (arrival.kind !== "rate" || run.elapsedMs < startMs) return [];
    const seconds = stagesMs(arrival.stages) / 1000;
    const [stage] = arrival.stages;
    const mine = run.samples.filter(({ stream }) => stream === name);
    const right = mine.filter(({ outcome }) => outcome === "ok");
    const times = ascending(right.map(({ totalMs }) => totalMs));
    return [
      {
        stream: name,
        offered_per_s: rounded(stage?.toPerSecond) ?? 0,
        answered_per_s: rounded(right.length / seconds) ?? 0,
        dropped: run.dropped.filter(({ stream }) => stream === name).length,
        failed: mine.filter(({ outcome }) => outcome === "failed").length,
        p50_ms: rounded(percentile(times, 0.5)),
        p99_ms: rounded(percentile(times, 0.99)),
      },
    ];
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
