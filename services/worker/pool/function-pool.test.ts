import assert from "node:assert/strict";
import { availableParallelism } from "node:os";
import { test } from "node:test";
import { functionConfigSchema } from "#contracts/function";
import { type Entry, FunctionPool } from "./function-pool.ts";

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
    pool.freed();
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
  pool.freed();
  assert.equal(pool.enough(1001, busy), false);
});

test("calls that take turns are not taken for calls that wait for something else", () => {
  const pool = known(1, 0.8, PROCESSORS);
  for (let n = 0; n < 100; n++) {
    pool.leased(1000);
    pool.served(10, 1000, 0.8);
    pool.freed();
  }
  assert.equal(pool.enough(1001, busy), true);
  // Longer calls for good are another matter.
  for (let n = 0; n < 5000; n++) {
    pool.leased(1000);
    pool.served(10, 1000, 0.8);
    pool.freed();
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

/** A sandbox of `pool` with so many invocations, one of which runs. */
function serving(pool: FunctionPool, active: number, sandbox = {}, part = {}): Entry {
  const recalled = { alive: true, holds: true, returning: false, recall() {}, ...sandbox };
  const known = { active, beganMs: 1000, filling: true, alone: false, retired: false };
  const entry = { ...known, sandbox: recalled, ...part } as unknown as Entry;
  pool.serving.add(entry);
  return entry;
}

/** One that had so many calls of `cpuMs` after one of `first`. */
function quick(cpuMs: number, calls: number, first = 20): FunctionPool {
  const pool = poolOf();
  pool.holds = true;
  for (let n = 0; n <= calls; n++) pool.served(cpuMs, 1000, n === 0 ? first : cpuMs);
  pool.leased(1000);
  return pool;
}

test("a call waits in a sandbox once 256 were quick, while all processors are busy, and not in one that takes none", () => {
  const pool = quick(0.2, 256);
  const entry = serving(pool, 1);
  assert.equal(pool.roomBehind(1001, busy), entry);
  assert.equal(
    pool.roomBehind(1001, () => false),
    undefined,
  );
  assert.equal(pool.roomBehind(1051, busy), undefined, "none has ended for a while");
  for (const [sandbox, part] of [
    [{ alive: false }, {}],
    [{ holds: false }, {}],
    [{ returning: true }, {}],
    [{}, { alone: true }],
    [{}, { retired: true }],
  ]) {
    const other = quick(0.2, 256);
    serving(other, 1, sandbox, part);
    assert.equal(other.roomBehind(1001, busy), undefined, JSON.stringify([sandbox, part]));
  }
  const tooFew = quick(0.2, 255);
  serving(tooFew, 1);
  assert.equal(tooFew.roomBehind(1001, busy), undefined, "one of the last 256 was long");
  pool.setBack();
  assert.equal(pool.roomBehind(1001, busy), undefined);
});

test("a sandbox gets as many as want 4 ms of processor time, 15 at most, and then none until half of them have begun", () => {
  const pool = quick(0.2, 256);
  const entry = serving(pool, 16);
  assert.equal(pool.roomBehind(1001, busy), undefined);
  entry.active = 9;
  assert.equal(pool.roomBehind(1001, busy), undefined, "eight wait there");
  entry.active = 8;
  assert.equal(pool.roomBehind(1001, busy), entry);
  entry.active = 15;
  assert.equal(pool.roomBehind(1001, busy), entry);
  const other = serving(pool, 3);
  assert.equal(pool.roomBehind(1001, busy), other, "the shorter line");
  const slower = quick(1.5, 256);
  for (let n = 1; n < PROCESSORS; n++) slower.leased(1000);
  const one = serving(slower, 3);
  assert.equal(slower.roomBehind(1001, busy), undefined, "two may wait there");
  one.active = 2;
  assert.equal(slower.roomBehind(1001, busy), one);
  const slow = quick(5, 256);
  for (let n = 1; n < PROCESSORS; n++) slow.leased(1000);
  serving(slow, 1);
  assert.equal(slow.roomBehind(1001, busy), undefined, "those are too slow");
});

test("where calls wait in sandboxes, fewer wait in front of them before no more are taken", () => {
  const pool = quick(0.2, 256);
  const waiting = Array.from({ length: 4 * PROCESSORS }, () => pool.wait(60_000, () => {}));
  assert.equal(pool.sated(1001, busy), false);
  waiting.push(pool.wait(60_000, () => {}));
  assert.equal(pool.sated(1001, busy), true);
  for (const { waiter } of waiting) pool.leave(waiter);
});

test("who waits behind a call for more than 50 ms is called back, and then nobody waits so for a while", () => {
  const pool = quick(0.2, 256);
  const recalled: string[] = [];
  const saying = (name: string) => ({ recall: () => recalled.push(name) });
  serving(pool, 2, saying("long"), { beganMs: 940 });
  serving(pool, 1, saying("alone there"), { beganMs: 0 });
  serving(pool, 2, saying("quick"), { beganMs: 990 });
  pool.recallOverdue(989);
  assert.deepEqual(recalled, []);
  assert.ok(pool.roomBehind(1001, busy));
  pool.recallOverdue(1000);
  assert.deepEqual(recalled, ["long"]);
  assert.equal(pool.roomBehind(1001, busy), undefined);
});
