import assert from "node:assert/strict";
import { availableParallelism } from "node:os";
import { test } from "node:test";
import { functionConfigSchema } from "#contracts/function";
import { FunctionPool } from "./function-pool.ts";

const PROCESSORS = availableParallelism();
const busy = (): boolean => true;

function poolOf(config: Record<string, unknown> = {}): FunctionPool {
  const spec = {
    versionId: "ver_a",
    functionId: "fn_a",
    tenantId: "ten_a",
    name: "a",
    version: 1,
    bundleDigest: "a",
    config: functionConfigSchema.parse({ name: "a", runtime: "python3", ...config }),
  };
  return new FunctionPool("a", spec, "container");
}

/** One whose calls take `ms` when nothing holds them up, of which `cpuMs` are processor time, and of which so many are under way. */
function known(ms: number, cpuMs: number | undefined, underWay: number, config = {}): FunctionPool {
  const pool = poolOf(config);
  for (let n = 0; n < 20; n++) {
    pool.leased(0);
    pool.served(ms, 1000, cpuMs);
  }
  for (let n = 0; n < underWay; n++) pool.leased(1000);
  return pool;
}

test("of calls that want nothing but processors no more are under way than there are, while all of those are busy", () => {
  assert.equal(known(10, 8, PROCESSORS).enough(1001, busy), true);
  assert.equal(known(10, 8, PROCESSORS - 1).enough(1001, busy), false, "one has a processor");
  assert.equal(
    known(10, 8, PROCESSORS).enough(1001, () => false),
    false,
    "a processor has nothing to do",
  );
});

test("calls that wait for something else, or of which that is not known, are not held back", () => {
  assert.equal(known(10, 4, PROCESSORS).enough(1001, busy), false);
  assert.equal(known(10, undefined, PROCESSORS).enough(1001, busy), false);
  assert.equal(poolOf().enough(1001, busy), false);
});

test("who gives a sandbox back without a call makes no function one of quick calls", () => {
  const pool = known(10, 1, PROCESSORS);
  pool.leased(1000);
  pool.served(0.001, 1000, undefined);
  assert.equal(pool.enough(1001, busy), false);
});

test("calls that take turns are not taken for calls that wait for something else", () => {
  const pool = known(1, 0.8, PROCESSORS);
  for (let n = 0; n < 100; n++) {
    pool.leased(1000);
    pool.served(10, 1000, 0.8);
  }
  assert.equal(pool.enough(1001, busy), true);
  // Longer calls for good are another matter.
  for (let n = 0; n < 5000; n++) {
    pool.leased(1000);
    pool.served(10, 1000, 0.8);
  }
  assert.equal(pool.enough(1001, busy), false);
});

test("none is held back for calls that do not end", () => {
  const pool = known(10, 8, PROCESSORS);
  assert.equal(pool.enough(1040, busy), true);
  assert.equal(pool.enough(1060, busy), false);
  const quick = known(0.5, 0.5, PROCESSORS);
  assert.equal(quick.enough(1009, busy), true);
  assert.equal(quick.enough(1011, busy), false, "those are long for this function");
});

test("a sandbox that serves several calls, or only one, is not held back", () => {
  assert.equal(known(10, 8, PROCESSORS, { concurrency: 4 }).enough(1001, busy), false);
  assert.equal(known(10, 8, PROCESSORS, { reuse: "fresh" }).enough(1001, busy), false);
});

test("who is held back asks for no sandbox more, and when they are many for no call more", () => {
  const pool = known(10, 8, PROCESSORS);
  const waiting = Array.from({ length: 8 * PROCESSORS + 1 }, () => pool.wait(60_000, () => {}));
  assert.equal(pool.wanted(1001, busy), 0);
  assert.deepEqual(
    [pool.sated(1001, busy), pool.sated(1001, () => false), pool.sated(1060, busy)],
    [true, false, false],
  );
  assert.ok(pool.wanted(1060, () => false) > 0, "but when none has ended for a while");
  const first = waiting.shift();
  assert.ok(first && pool.leave(first.waiter));
  assert.equal(pool.sated(1001, busy), false, "eight for each processor");
  assert.deepEqual(
    waiting.map(({ waiter }) => pool.leave(waiter)),
    waiting.map(() => true),
  );
  for (const { waiter } of [first, ...waiting]) assert.equal(pool.leave(waiter), false);
});
