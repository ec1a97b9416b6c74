import { ascending, percentile } from "#report/statistics";
import type { Sample } from "./sample.ts";

/** What tells samples apart in tables, plots and comparisons. */
export interface GroupKey {
  target: string;
  stream: string;
  /** Null where the scenario gives none. */
  tag: string | null;
  path: string | null;
  start: string | null;
}

/** Times are of answers that were right; failures and refusals are counted. Nothing is trimmed. */
export interface Group extends GroupKey {
  ok: number;
  refused: number;
  failed: number;
  p50_ms: number | null;
  p90_ms: number | null;
  p99_ms: number | null;
  max_ms: number | null;
  first_byte_p50_ms: number | null;
  first_byte_p99_ms: number | null;
  /** Total times in rising order, at most 1000 of them, evenly spaced: the nearest rank of (i + 1) / length. */
  quantiles_ms: number[];
}

const MOST_QUANTILES = 1000;

export const keyText = ({ target, stream, tag, path, start }: GroupKey): string =>
  [target, stream, tag, path, start].join("\u0000");

/** By stream in the order in which each was met first, within it by tag, path and start. */
export function groupsOf(samples: readonly Sample[]): Group[] {
  const met = new Map<string, { key: GroupKey; samples: Sample[] }>();
  for (const sample of samples) {
    const { target, stream, tag, path, start } = sample;
    const key: GroupKey = { target, stream, tag, path, start };
    const text = keyText(key);
    const group = met.get(text);
    if (group) group.samples.push(sample);
    else met.set(text, { key, samples: [sample] });
  }
  const streams = [...new Set(samples.map(({ stream }) => stream))];
  const within = ({ tag, path, start, target }: GroupKey): string =>
    [tag, path, start, target].join("\u0000");
  return [...met.values()]
    .map((one) => groupOf(one.key, one.samples))
    .sort(
      (a, b) =>
        streams.indexOf(a.stream) - streams.indexOf(b.stream) ||
        within(a).localeCompare(within(b), "en", { numeric: true }),
    );
}

function groupOf(key: GroupKey, samples: readonly Sample[]): Group {
  const right = samples.filter(({ outcome }) => outcome === "ok");
  const times = ascending(right.map(({ totalMs }) => totalMs));
  const first = ascending(right.flatMap(({ firstByteMs }) => firstByteMs ?? []));
  const of = (sorted: readonly number[], part: number): number | null =>
    rounded(percentile(sorted, part));
  return {
    ...key,
    ok: right.length,
    refused: samples.filter(({ outcome }) => outcome === "refused").length,
    failed: samples.filter(({ outcome }) => outcome === "failed").length,
    p50_ms: of(times, 0.5),
    p90_ms: of(times, 0.9),
    p99_ms: of(times, 0.99),
    max_ms: of(times, 1),
    first_byte_p50_ms: of(first, 0.5),
    first_byte_p99_ms: of(first, 0.99),
    quantiles_ms: sketch(times),
  };
}

/** All values where they are few, else evenly spaced quantiles of them. */
export function sketch(sorted: readonly number[]): number[] {
  const length = Math.min(sorted.length, MOST_QUANTILES);
  return Array.from(
    { length },
    (_, index) => rounded(percentile(sorted, (index + 1) / length)) as number,
  );
}

export interface OverTime {
  target: string;
  path: string;
  /** Of each slice of the run: its middle, s, and times of answers to what was sent in it; null where there was none. */
  slices: { at_s: number; n: number; p50_ms: number | null; p99_ms: number | null }[];
}

/** Times over the run, by target and path, in so many slices. */
export function overTime(samples: readonly Sample[], elapsedMs: number, count = 60): OverTime[] {
  const width = Math.max(1, elapsedMs) / count;
  const series = new Map<string, { target: string; path: string; slices: number[][] }>();
  for (const { target, path, outcome, atMs, totalMs } of samples) {
    if (outcome !== "ok" || path === null) continue;
    const key = `${target}\u0000${path}`;
    let one = series.get(key);
    if (!one) {
      one = { target, path, slices: Array.from({ length: count }, () => []) };
      series.set(key, one);
    }
    one.slices[Math.min(count - 1, Math.floor(atMs / width))]?.push(totalMs);
  }
  return [...series.values()].map(({ target, path, slices }) => ({
    target,
    path,
    slices: slices.map((times, index) => {
      const sorted = ascending(times);
      return {
        at_s: Math.round((index + 0.5) * width) / 1000,
        n: sorted.length,
        p50_ms: rounded(percentile(sorted, 0.5)),
        p99_ms: rounded(percentile(sorted, 0.99)),
      };
    }),
  }));
}

export const rounded = (value: number | null | undefined): number | null =>
  value === null || value === undefined ? null : Math.round(value * 1000) / 1000;
