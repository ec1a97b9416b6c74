import assert from "node:assert/strict";
import { test } from "node:test";
import { TenantFlow } from "./tenant-flow.ts";

const SLACK = 4;
/** `count` calls that were `totalMs` at their node, of which they waited `waitedMs`. */
function flowOf(underWay: number, count: number, totalMs: number, waitedMs: number): TenantFlow {
  const flow = new TenantFlow();
  flow.underWay = underWay;
  for (let n = 0; n < count; n++) flow.ended(totalMs, waitedMs);
  return flow;
}

test("as long as nothing is known a tenant is not held back", () => {
  assert.equal(flowOf(1000, 0, 0, 0).full(SLACK), false);
});

test("calls that wait for a processor or a place are bounded", () => {
  // A hundred under way, of which five work: the rest only waits.
  const flow = flowOf(100, 50, 40, 38);
  assert.ok(Math.abs(flow.working - 0.05) < 0.001);
  assert.equal(flow.full(SLACK), true);
  flow.underWay = 4;
  assert.equal(flow.full(SLACK), true);
  flow.underWay = 3;
  assert.equal(flow.full(SLACK), false);
});

test("functions that wait for something else than Cloister are at work, however long", () => {
  const flow = flowOf(500, 50, 60_000, 5);
  assert.equal(flow.full(SLACK), false);
});

test("long calls count by their time, so that many short ones do not hide them", () => {
  const flow = flowOf(90, 50, 2, 1.9);
  for (let n = 0; n < 10; n++) flow.ended(30_000, 10);
  assert.equal(flow.full(SLACK), false);
});

test("what a function waits for a processor is no work", () => {
  const flow = new TenantFlow();
  flow.underWay = 40;
  // 2 ms until its function had it, 38 in it, of which a tenth was work.
  for (let n = 0; n < 50; n++) flow.ended(40, 2, 0.9);
  assert.ok(Math.abs(flow.working - 0.095) < 0.001);
  assert.equal(flow.full(SLACK), true);
});

/** How many are under way in the end of a flood that begins with 64, each of whose calls needs a processor of two for 2 ms and waits 1 ms before. */
function settled(told: boolean, sleepMs: number): number {
  const flow = new TenantFlow();
  flow.underWay = 64;
  for (let n = 0; n < 2000; n++) {
    const wantProcessors = (flow.underWay * 2) / (2 + sleepMs);
    const computesMs = 2 * Math.max(1, wantProcessors / 2);
    const handlerMs = computesMs + sleepMs;
    flow.ended(1 + handlerMs, 1, told ? (computesMs - 2) / handlerMs : 0);
    flow.underWay--;
    while (flow.underWay < 64 && !flow.full(2)) flow.underWay++;
  }
  return flow.underWay;
}

test("calls that take the processors from each other are not let in the more for it", () => {
  const untold = settled(false, 0);
  assert.ok(untold >= 60, `${untold}: each takes the longer, the more there are`);
  const told = settled(true, 0);
  assert.ok(told >= 2 && told <= 8, `${told}`);
});

test("calls that sleep are let in as ever", () => {
  assert.equal(settled(true, 100), 64);
});

test("one call may always be under way", () => {
  assert.equal(flowOf(0, 100, 100, 100).full(0), false);
  assert.equal(flowOf(1, 100, 100, 100).full(0), true);
});
