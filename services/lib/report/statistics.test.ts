import assert from "node:assert/strict";
import { test } from "node:test";
import {
  distribution,
  medianInterval,
  medianRatio,
  mediansByName,
  type Pair,
  pairedInterval,
  pairedRatio,
  ratioInterval,
} from "./statistics.ts";

test("percentiles are measured values by nearest rank, failures count as attempts", () => {
  const times = Array.from({ length: 100 }, (_, index) => 100 - index);
  assert.deepEqual(distribution(times, 2), {
    n: 102,
    failures: 2,
    min_ms: 1,
    p50_ms: 50,
    p90_ms: 90,
    p99_ms: 99,
    max_ms: 100,
  });
});

test("one value is every percentile, none is null", () => {
  assert.equal(distribution([2.34567], 0).p99_ms, 2.346);
  assert.equal(distribution([], 5).p50_ms, null);
  assert.equal(distribution([], 5).n, 5);
});

/** Values of a normal distribution by sums of twelve, the same each time. */
function sample(count: number, mean: number, offset: number): number[] {
  let state = 12_345 + offset;
  const next = (): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return state / 0x80000000;
  };
  return Array.from({ length: count }, () => {
    let sum = 0;
    for (let n = 0; n < 12; n++) sum += next();
    return mean + sum - 6;
  });
}

test("about 95 of 100 intervals hold the true median, and larger samples give narrower ones", () => {
  let held = 0;
  for (let n = 0; n < 100; n++) {
    const found = medianInterval(sample(60, 50, n * 7919));
    assert.ok(found);
    if (found.low <= 50 && found.high >= 50) held++;
  }
  assert.ok(held >= 88, `${held} of 100`);
  const width = (count: number): number => {
    const found = medianInterval(sample(count, 50, 1));
    assert.ok(found);
    return found.high - found.low;
  };
  assert.ok(width(1000) < width(30));
});

test("the interval of a ratio holds it; equal samples give one around 1; too few values give none", () => {
  const [slow, fast] = [sample(100, 200, 3), sample(100, 100, 4)];
  const found = ratioInterval(slow, fast);
  assert.ok(found && found.low < 2 && found.high > 2 && found.high - found.low < 0.1);
  const same = ratioInterval(slow, slow);
  assert.ok(same && same.low <= 1 && same.high >= 1);
  assert.equal(ratioInterval([1, 2], slow), null);
  assert.equal(ratioInterval(slow, [0, 0, 0, 0, 0]), null);
  assert.equal(medianInterval([1, 2, 3, 4]), null);
  assert.deepEqual(medianInterval([7, 7, 7, 7, 7]), { low: 7, high: 7 });
  assert.equal(medianRatio([3], [2]), 1.5);
  assert.equal(medianRatio([], [2]), null);
  assert.equal(medianRatio([3], [0]), null);
});

test("a pair's ratio knows nothing of a pace that both share", () => {
  const paces = [1, 1.7, 1, 1.7, 1.7, 1];
  const pairs = paces.map((pace): Pair => [101 * pace, 100 * pace]);
  assert.equal(pairedRatio(pairs), 1.01);
  assert.deepEqual(pairedInterval(pairs.map((pair) => [pair])), { low: 1.01, high: 1.01 });
  assert.equal(pairedRatio([[1, 0]]), null);
  assert.equal(pairedInterval([...pairs.slice(0, 4).map((pair) => [pair]), []]), null);
});

test("where what belongs together is alike, intervals over groups hold the true ratio and those over pairs do not", () => {
  let [held, apart] = [0, 0];
  for (let n = 0; n < 40; n++) {
    // Twenty groups, each with a ratio of its own around 2, which all of its five pairs have but for a little.
    const own = sample(20, 20, n * 7919);
    const groups = own.map((ratio, at) =>
      sample(5, ratio, n * 31 + at).map((value): Pair => [value + (ratio - value) * 0.9, 10]),
    );
    const holds = (found: ReturnType<typeof pairedInterval>): boolean =>
      found !== null && found.low <= 2 && found.high >= 2;
    if (holds(pairedInterval(groups))) held++;
    if (holds(pairedInterval(groups.flat().map((pair) => [pair])))) apart++;
  }
  assert.ok(held >= 34, `${held} of 40`);
  assert.ok(apart < held - 6, `${apart} of 40`);
});

test("the same data give the same interval", () => {
  const values = sample(80, 10, 5);
  assert.deepEqual(medianInterval(values), medianInterval(values));
});

test("medians go by name, and what was not told is no zero", () => {
  assert.deepEqual(mediansByName([{ a: 1, b: 5 }, { a: 3 }, { a: 2, b: undefined }]), {
    a: 2,
    b: 5,
  });
  assert.deepEqual(mediansByName([]), {});
});
