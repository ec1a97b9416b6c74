import assert from "node:assert/strict";
import { test } from "node:test";
import { arrive } from "./open-model.ts";

const model = { ratePerSecond: 1000, seconds: 0.2, mostAtOnce: 3 };
const never = new AbortController().signal;

test("as many arrive as the rate says, whatever becomes of them", async () => {
  let sent = 0;
  const found = await arrive({ ...model, mostAtOnce: 1000, signal: never }, async () => {
    if (sent++ % 4 === 3) throw new Error("no");
  });
  assert.equal(sent, 200);
  assert.deepEqual([found.times.length, found.failures.length, found.dropped], [150, 50, 0]);
  assert.equal(found.failures[0], "no");
});

test("what is due while too many are under way is dropped, and told", async () => {
  const held: (() => void)[] = [];
  const arriving = arrive({ ...model, signal: never }, () => {
    if (held.length === 0) setTimeout(() => held.map((end) => end()), 400);
    return new Promise<void>((resolve) => held.push(resolve));
  });
  const found = await arriving;
  assert.deepEqual([found.times.length, found.dropped, held.length], [3, 197, 3]);
});

test("a signal ends the arrivals, and those under way are waited for", async () => {
  const abort = new AbortController();
  let sent = 0;
  const found = await arrive(
    { ratePerSecond: 1000, seconds: 600, mostAtOnce: 1000, signal: abort.signal },
    async () => {
      if (++sent === 20) abort.abort();
      await new Promise((resolve) => setImmediate(resolve));
    },
  );
  assert.ok(sent >= 20 && sent < 1000);
  assert.equal(found.times.length, sent);
});
