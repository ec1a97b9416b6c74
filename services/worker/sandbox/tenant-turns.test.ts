import assert from "node:assert/strict";
import { test } from "node:test";
import { TenantTurns } from "./tenant-turns.ts";

/** A task that ends when it is told to. */
function task() {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const one = {
    begun: false,
    end: resolve,
    fail: reject,
    run: () => {
      one.begun = true;
      return promise;
    },
  };
  return one;
}
/** What follows from what has just ended has happened. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

test("of one tenant one at a time, in order; another does not wait for it", async () => {
  const turns = new TenantTurns(2);
  const [slow, next, other] = [task(), task(), task()];
  const first = turns.run("a", slow.run);
  const second = turns.run("a", next.run);
  const third = turns.run("b", other.run);
  assert.deepEqual([slow.begun, next.begun, other.begun], [true, false, true]);
  other.end("b");
  assert.equal(await third, "b");
  await settled();
  assert.equal(next.begun, false);
  slow.end("a1");
  assert.equal(await first, "a1");
  await settled();
  assert.equal(next.begun, true);
  next.end("a2");
  assert.equal(await second, "a2");
});

test("no more at once than said; tenants take turns", async () => {
  const turns = new TenantTurns(1);
  const tasks = [task(), task(), task(), task()] as const;
  const ends = tasks.map(({ run }, n) => turns.run(n < 3 ? "a" : "b", run));
  for (const [n, begun] of [
    [0, [true, false, false, false]],
    [1, [true, true, false, false]],
    [3, [true, true, false, true]],
    [2, [true, true, true, true]],
  ] as const) {
    assert.deepEqual(
      tasks.map((one) => one.begun),
      begun,
    );
    tasks[n].end("");
    await settled();
  }
  await Promise.all(ends);
});

test("a task that fails gives its turn on", async () => {
  const turns = new TenantTurns(1);
  const bad = task();
  const failed = turns.run("a", bad.run);
  const after = turns.run("a", async () => "after");
  bad.fail(new Error("no"));
  await assert.rejects(failed, /no/);
  assert.equal(await after, "after");
});
