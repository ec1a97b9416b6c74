/** Times of one thing, ms; a failure has none. Nothing is trimmed. */
export interface Distribution {
  n: number;
  failures: number;
  min_ms: number | null;
  p50_ms: number | null;
  p90_ms: number | null;
  p99_ms: number | null;
  max_ms: number | null;
}

/** Nearest rank: every figure shown is one that was measured. Null when nothing was. */
export function distribution(times: readonly number[], failures: number): Distribution {
  const sorted = ascending(times);
  const at = (part: number): number | null => rounded(percentile(sorted, part));
  return {
    n: times.length + failures,
    failures,
    min_ms: at(0),
    p50_ms: at(0.5),
    p90_ms: at(0.9),
    p99_ms: at(0.99),
    max_ms: at(1),
  };
}

/** Of values in ascending order, by nearest rank; null of none. `part` is from 0 to 1. */
export function percentile(sorted: ArrayLike<number>, part: number): number | null {
  return sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)] ?? null;
}

export const ascending = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b);

export const median = (values: readonly number[]): number | null =>
  percentile(ascending(values), 0.5);

/** Of each name that was told; one that was not told of a sample is no zero. */
export function mediansByName(
  samples: readonly Readonly<Record<string, number | undefined>>[],
): Record<string, number> {
  const values = new Map<string, number[]>();
  for (const sample of samples)
    for (const [name, value] of Object.entries(sample)) {
      if (value === undefined) continue;
      const known = values.get(name);
      if (known) known.push(value);
      else values.set(name, [value]);
    }
  return Object.fromEntries(
    [...values].map(([name, all]) => [name, rounded(median(all)) as number]),
  );
}

/** Where the true value lies with this probability, as far as the sample can tell. */
export interface Interval {
  low: number;
  high: number;
}
export const CONFIDENCE = 0.95;

/** Fewer values than this say nothing of how far their median may be off. */
export const LEAST_VALUES = 5;
const RESAMPLES = 2000;
/** Any; the same data must give the same interval, so that two readers of a report agree. */
const SEED = 0x2545f491;

/** Of the median, by the percentile bootstrap (Efron 1979). Null for fewer than `LEAST_VALUES`. */
export function medianInterval(values: readonly number[]): Interval | null {
  if (values.length < LEAST_VALUES) return null;
  const random = generator(SEED);
  return interval(Float64Array.from({ length: RESAMPLES }, () => resampledMedian(values, random)));
}

/** Of the ratio of two medians, each sample drawn again by itself. Null where either is too small or a median is zero. */
export function ratioInterval(part: readonly number[], whole: readonly number[]): Interval | null {
  if (part.length < LEAST_VALUES || whole.length < LEAST_VALUES) return null;
  const random = generator(SEED);
  const ratios = Float64Array.from(
    { length: RESAMPLES },
    () => resampledMedian(part, random) / resampledMedian(whole, random),
  );
  const found = interval(ratios);
  return Number.isFinite(found.low) && Number.isFinite(found.high) ? found : null;
}

/** Of medians; null where one is missing or the second is zero. */
export function medianRatio(part: readonly number[], whole: readonly number[]): number | null {
  const [above, below] = [median(part), median(whole)];
  return above === null || !below ? null : Math.round((above / below) * 10_000) / 10_000;
}

/** Two values of the same round: of what is compared, and of what it is compared with. */
export type Pair = readonly [part: number, whole: number];

/** Median of the pairs' ratios. The pace of a machine that changes between rounds is in both of a pair, and so is in none of them. Null of none. */
export function pairedRatio(pairs: readonly Pair[]): number | null {
  const found = median(ratiosOf(pairs));
  return found === null ? null : Math.round(found * 10_000) / 10_000;
}

/**
 * Of that median. What belongs together is drawn again together (the cluster bootstrap; Davison and Hinkley 1997, 3.8): pairs of the same two processes say
 * as little about other processes as one such pair does. Null for fewer than `LEAST_VALUES` groups that hold a pair.
 */
export function pairedInterval(groups: readonly (readonly Pair[])[]): Interval | null {
  const ratios = groups.map(ratiosOf).filter((group) => group.length > 0);
  if (ratios.length < LEAST_VALUES) return null;
  const random = generator(SEED);
  const resampled = (): number => {
    const drawn = ratios.flatMap(() => ratios[Math.floor(random() * ratios.length)] ?? []);
    return percentile(Float64Array.from(drawn).sort(), 0.5) as number;
  };
  return interval(Float64Array.from({ length: RESAMPLES }, resampled));
}

const ratiosOf = (pairs: readonly Pair[]): number[] =>
  pairs.filter(([, whole]) => whole > 0).map(([part, whole]) => part / whole);

function interval(estimates: Float64Array): Interval {
  estimates.sort();
  const tail = (1 - CONFIDENCE) / 2;
  const at = (part: number): number => rounded(percentile(estimates, part)) as number;
  return { low: at(tail), high: at(1 - tail) };
}

function resampledMedian(values: readonly number[], random: () => number): number {
  const drawn = new Float64Array(values.length);
  for (let at = 0; at < drawn.length; at++)
    drawn[at] = values[Math.floor(random() * values.length)] as number;
  return percentile(drawn.sort(), 0.5) as number;
}

/** mulberry32: small, and good enough to draw samples. From 0 up to 1. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const rounded = (value: number | null): number | null =>
  value === null ? null : Math.round(value * 1000) / 1000;
