import assert from "node:assert/strict";
import { test } from "node:test";
import { partsOf, sharesOf } from "./phases.ts";

const phases = {
  queue_ms: 1,
  acquire_ms: 100,
  create_ms: 10,
  runtime_ms: 80,
  init_ms: 5,
  restore_ms: 8,
  renew_ms: 3,
  reset_ms: 50,
  handler_ms: 2,
  reply_ms: 1,
};

test("phases that hold others are told without them, and all together are the median", () => {
  const parts = partsOf({ phases, p50_ms: 120 });
  assert.deepEqual([parts.acquire, parts.restore, parts.renew], [5, 5, 3]);
  const sum = Object.values(parts).reduce((total, value) => total + value, 0);
  // A reset happened while nobody waited.
  assert.equal(sum, 120);
  assert.equal(parts.rest, 8);
});

test("where medians add up to more than the median, nothing is negative; shares are of the sum", () => {
  const parts = partsOf({ phases, p50_ms: 50 });
  assert.ok(Object.values(parts).every((value) => value >= 0));
  const shares = Object.values(sharesOf(parts)).reduce((total, value) => total + value, 0);
  assert.ok(Math.abs(shares - 100) < 1e-9);
  assert.deepEqual(sharesOf({ queue: 0 }), { queue: 0 });
  assert.equal(partsOf({ phases: {}, p50_ms: null }).rest, 0);
});
