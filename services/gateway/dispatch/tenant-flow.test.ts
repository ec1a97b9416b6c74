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
  assert.ok(Math.abs(flow.atWork - 5) < 0.001);
  assert.equal(flow.full(SLACK), true);
  flow.underWay = 4;
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

test("one call may always be under way", () => {
  assert.equal(flowOf(0, 100, 100, 100).full(0), false);
  assert.equal(flowOf(1, 100, 100, 100).full(0), true);
});
