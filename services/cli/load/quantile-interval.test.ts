import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Ordered,
  quantile,
  quantileInterval,
  ratioInterval,
  uniform,
} from "./quantile-interval.ts";

const ordered = (values: number[]): Ordered => ({
  values: values.sort((a, b) => a - b),
  n: values.length,
});

/** Exponential values, whose median is ln 2 times the mean. */
function exponential(n: number, mean: number, seed: number): Ordered {
  const random = uniform(seed);
  return ordered(Array.from({ length: n }, () => -mean * Math.log(1 - random())));
}

test("a quantile is one of the values, by nearest rank", () => {
  const set = ordered([5, 1, 4, 2, 3]);
  assert.equal(quantile(set, 0), 1);
  assert.equal(quantile(set, 0.5), 3);
  assert.equal(quantile(set, 0.99), 5);
  assert.equal(quantile({ values: [], n: 0 }, 0.5), undefined);
});

test("the interval has the true median in about 95 of 100 samples", () => {
  let inside = 0;
  for (let seed = 1; seed <= 400; seed++) {
    const interval = quantileInterval(exponential(101, 10, seed), 0.5);
    assert.ok(interval);
    assert.ok(interval.low <= interval.value && interval.value <= interval.high);
    if (interval.low <= 10 * Math.LN2 && 10 * Math.LN2 <= interval.high) inside += 1;
  }
  assert.ok(inside >= 370 && inside <= 395, `${inside} of 400`);
});

test("the interval is that of resamples made one by one", () => {
  const set = exponential(60, 10, 3);
  const random = uniform(99);
  const medians = Array.from({ length: 4000 }, () => {
    const again = set.values.map(() => set.values[Math.floor(random() * set.n)] ?? 0);
    return quantile(ordered(again), 0.5) ?? 0;
  }).sort((a, b) => a - b);
  const interval = quantileInterval(set, 0.5);
  assert.ok(interval);
  const index = (value: number): number => set.values.indexOf(value);
  assert.ok(Math.abs(index(interval.low) - index(medians[99] ?? 0)) <= 1);
  assert.ok(Math.abs(index(interval.high) - index(medians[3899] ?? 0)) <= 1);
});

test("a ratio tells twice as slow from the same", () => {
  const base = exponential(2000, 10, 1);
  const twice = ratioInterval(base, exponential(2000, 20, 2), 0.5);
  assert.ok(twice && twice.low > 1.7 && twice.high < 2.3, JSON.stringify(twice));
  const same = ratioInterval(base, exponential(2000, 10, 3), 0.5);
  assert.ok(same && same.low < 1 && same.high > 1, JSON.stringify(same));
  assert.equal(ratioInterval(base, { values: [], n: 0 }, 0.5), undefined);
  assert.equal(ratioInterval(ordered([0, 0]), base, 0.5), undefined);
});

test("evenly spaced quantiles of many values give the interval of them all", () => {
  const all = exponential(50_000, 10, 5);
  const kept = Array.from({ length: 2000 }, (_, at) => quantile(all, (at + 1) / 2000) ?? 0);
  const [whole, few] = [
    quantileInterval(all, 0.5),
    quantileInterval({ values: kept, n: all.n }, 0.5),
  ];
  assert.ok(whole && few);
  assert.ok(Math.abs(whole.low - few.low) < 0.05 && Math.abs(whole.high - few.high) < 0.05);
});
