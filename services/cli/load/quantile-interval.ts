/** Values in rising order. `n` says of how many they are the evenly spaced quantiles, when not all were kept. */
export interface Ordered {
  values: readonly number[];
  n: number;
}

export interface Interval {
  value: number;
  /** 95 % of the draws lie between these. */
  low: number;
  high: number;
}

const DRAWS = 4000;
const TAIL = 0.025;
/** Fixed, so that the same measurements always give the same interval. */
const SEED = 0x5eed;

/** The quantile of a set by nearest rank. Undefined for none. */
export const quantile = ({ values }: Ordered, part: number): number | undefined =>
  values[rank(part, values.length) - 1];

const rank = (part: number, n: number): number => Math.max(1, Math.ceil(part * n));

/** A quantile with its bootstrap interval. Undefined for no values. */
export function quantileInterval(set: Ordered, part: number): Interval | undefined {
  const value = quantile(set, part);
  if (value === undefined) return undefined;
  const draw = resampler(set, part, uniform(SEED));
  return between(value, draws(draw));
}

/** How many times `b` is as large as `a` at a quantile, each resampled on its own. Undefined where one has no values or `a` is zero there. */
export function ratioInterval(a: Ordered, b: Ordered, part: number): Interval | undefined {
  const [below, above] = [quantile(a, part), quantile(b, part)];
  if (below === undefined || above === undefined || below <= 0) return undefined;
  const random = uniform(SEED);
  const [drawA, drawB] = [resampler(a, part, random), resampler(b, part, random)];
  return between(
    above / below,
    draws(() => drawB() / drawA()),
  );
}

const draws = (draw: () => number): number[] => Array.from({ length: DRAWS }, draw);

function between(value: number, drawn: number[]): Interval {
  const sorted = drawn.sort((x, y) => x - y);
  const at = (part: number): number => sorted[rank(part, sorted.length) - 1] ?? value;
  return { value, low: at(TAIL), high: at(1 - TAIL) };
}

/**
 * One quantile of a resample with replacement, without making the resample: n uniform draws through the empirical distribution have as their k-th
 * smallest the value at the k-th smallest uniform, and that is distributed as Beta(k, n + 1 - k).
 */
function resampler({ values, n }: Ordered, part: number, random: () => number): () => number {
  const k = rank(part, n);
  return () => {
    const x = gamma(k, random);
    const u = x / (x + gamma(n + 1 - k, random));
    return values[rank(u, values.length) - 1] ?? Number.NaN;
  };
}

/** Gamma(shape, 1) for a shape of at least 1, by the method of Marsaglia and Tsang (2000). */
function gamma(shape: number, random: () => number): number {
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    const v = (1 + c * normal) ** 3;
    if (v > 0 && Math.log(1 - random()) < normal ** 2 / 2 + d - d * v + d * Math.log(v))
      return d * v;
  }
}

/** Uniform numbers in [0, 1) from a seed (mulberry32). */
export function uniform(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
