import assert from "node:assert/strict";
import { test } from "node:test";
import { distribution } from "./distribution.ts";

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
