import assert from "node:assert/strict";
import { test } from "node:test";
import { callers } from "./closed-model.ts";

const never = new AbortController().signal;
const turn = (): Promise<void> =>
  new Promise((resolve) => {
    setImmediate(resolve);
  });

test("as many are under way as there are callers, and each asks again when it has its answer", async () => {
  let underWay = 0;
  let most = 0;
  let sent = 0;
  const found = await callers({ callers: 7, seconds: 0.05, signal: never }, async () => {
    most = Math.max(most, ++underWay);
    await turn();
    underWay--;
    if (sent++ % 2) throw new Error("no");
  });
  assert.deepEqual([most, underWay], [7, 0]);
  assert.ok(sent > 7);
  assert.equal(found.times.length + found.failures.length, sent);
  assert.equal(found.failures.length, Math.floor(sent / 2));
  assert.deepEqual([found.dropped, found.failures[0]], [0, "no"]);
});

test("a signal ends it, once the answers under way are there", async () => {
  const abort = new AbortController();
  let sent = 0;
  const found = await callers({ callers: 3, seconds: 600, signal: abort.signal }, async () => {
    if (++sent === 20) abort.abort();
    await turn();
  });
  assert.ok(sent >= 20 && sent < 26, `${sent}`);
  assert.equal(found.times.length, sent);
});
