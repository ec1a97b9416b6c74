import {
  ascending,
  distribution,
  type Interval,
  median,
  type Pair,
  pairedInterval,
  pairedRatio,
  percentile,
} from "#report/statistics";
import type { Outcome } from "./rounds.ts";

export const PATHS = ["process", "container", "microvm"] as const;
export type Path = (typeof PATHS)[number];

export interface WorkloadReport {
  name: string;
  n: number;
  failures: Record<Path, number>;
  /** Medians, ms; null when nothing succeeded. */
  process_ms: number | null;
  container_ms: number | null;
  microvm_ms: number | null;
  /** To the bare process of the same round, the median of all rounds in which both succeeded. */
  container_ratio: number | null;
  microvm_ratio: number | null;
  /** Where those lie with 95 %, by bootstrap over sandboxes; null for fewer than 5 of each path. */
  container_interval: Interval | null;
  microvm_interval: Interval | null;
  /**
   * Of what least met other work of the machine: the shortest times, or where the function tells times of slices of some 2 ms, their tenth percentile in each
   * sandbox, to that of the bare process of the same rounds, and of those the median.
   */
  container_least_ratio: number | null;
  microvm_least_ratio: number | null;
  /** Of those of slices. */
  container_least_interval: Interval | null;
  microvm_least_interval: Interval | null;
  /** Those themselves, ms. */
  process_least_ms: number | null;
  container_least_ms: number | null;
  microvm_least_ms: number | null;
  /** Of the micro-VM, each time on average; page faults of its monitor, guest memory included. Absent for starts, and where nobody counts. */
  exits?: Record<string, number>;
  page_faults?: number;
}

/** Runs of one workload on one path, and the slices that its function told of. */
export type Timed = Pick<Outcome, "times" | "rounds" | "failures"> & {
  /** By round. */
  slicesMs: ReadonlyMap<number, readonly number[]>;
};

/** Times and ratios of one workload, whose sandboxes stayed for so many rounds each. */
export function figures(
  name: string,
  of: (path: Path) => Timed,
  roundsOfASandbox: number,
): Omit<WorkloadReport, "exits" | "page_faults"> {
  const bare = new Map(of("process").rounds.map((round, at) => [round, of("process").times[at]]));
  const bareSlices = leastBySet(of("process").slicesMs, roundsOfASandbox);
  const [process, container, microvm] = PATHS.map((path) => {
    const { times, failures, slicesMs } = of(path);
    const all = distribution(times, failures.length);
    const least = leastBySet(slicesMs, roundsOfASandbox);
    const slices = [...least].flatMap(([set, part]): Pair[][] => {
      const whole = bareSlices.get(set);
      return whole === undefined ? [] : [[[part, whole]]];
    });
    const least_ms = least.size > 0 ? median([...least.values()]) : all.min_ms;
    return { ...all, least_ms, slices, pairs: pairsBySet(of(path), bare, roundsOfASandbox) };
  }) as [Distributed, Distributed, Distributed];
  const leastRatio = ({ slices, least_ms }: Distributed): number | null => {
    if (slices.length > 0) return pairedRatio(slices.flat());
    const whole = process.least_ms;
    return least_ms === null || whole === null ? null : pairedRatio([[least_ms, whole]]);
  };
  return {
    name,
    n: process.n,
    failures: {
      process: process.failures,
      container: container.failures,
      microvm: microvm.failures,
    },
    process_ms: process.p50_ms,
    container_ms: container.p50_ms,
    microvm_ms: microvm.p50_ms,
    container_ratio: pairedRatio(container.pairs.flat()),
    microvm_ratio: pairedRatio(microvm.pairs.flat()),
    container_interval: pairedInterval(container.pairs),
    microvm_interval: pairedInterval(microvm.pairs),
    process_least_ms: process.least_ms,
    container_least_ms: container.least_ms,
    microvm_least_ms: microvm.least_ms,
    container_least_ratio: leastRatio(container),
    microvm_least_ratio: leastRatio(microvm),
    container_least_interval: pairedInterval(container.slices),
    microvm_least_interval: pairedInterval(microvm.slices),
  };
}
type Distributed = ReturnType<typeof distribution> & {
  least_ms: number | null;
  /** To those of the bare process, by sandbox: times, and tenth percentiles of slices. */
  pairs: Pair[][];
  slices: Pair[][];
};

/** Tenth percentiles of the slices of each sandbox. */
function leastBySet(
  slicesMs: Timed["slicesMs"],
  roundsOfASandbox: number,
): ReadonlyMap<number, number> {
  const sets = new Map<number, number[]>();
  for (const [round, slices] of slicesMs) {
    const set = Math.floor(round / roundsOfASandbox);
    sets.set(set, [...(sets.get(set) ?? []), ...slices]);
  }
  return new Map(
    [...sets].flatMap(([set, all]) => {
      const tenth = percentile(ascending(all), 0.1);
      return tenth === null ? [] : [[set, tenth]];
    }),
  );
}

/** Times with those of the bare process in the same round, by the sandboxes they were measured in. */
function pairsBySet(
  { times, rounds }: Timed,
  bare: ReadonlyMap<number, number | undefined>,
  roundsOfASandbox: number,
): Pair[][] {
  const groups = new Map<number, Pair[]>();
  for (const [at, round] of rounds.entries()) {
    const [part, whole] = [times[at], bare.get(round)];
    if (part === undefined || whole === undefined) continue;
    const set = Math.floor(round / roundsOfASandbox);
    const group = groups.get(set) ?? [];
    group.push([part, whole]);
    groups.set(set, group);
  }
  return [...groups.values()];
}
