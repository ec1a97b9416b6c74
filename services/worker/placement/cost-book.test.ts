import assert from "node:assert/strict";
import { test } from "node:test";
import type { Path } from "#contracts/function";
import { decidePlacement } from "#contracts/placement";
import { PLACEMENT_TABLE, priorOf } from "#contracts/placement-table";
import { CostBook } from "./cost-book.ts";

const { cost: rules } = PLACEMENT_TABLE;
const MIB = 1024 * 1024;

function book() {
  const clock = { ms: 0 };
  return { clock, costs: new CostBook(rules, () => clock.ms) };
}

test("what was never seen costs what the table says", () => {
  const { costs } = book();
  for (const path of ["container", "microvm"] as const) {
    assert.deepEqual(costs.expect("ver_1", path, "cold"), {
      ...priorOf(rules, path, "cold"),
      observed: 0,
    });
    assert.deepEqual(costs.overall(path, "cold"), priorOf(rules, path, "cold"));
  }
});

test("an estimate goes to what is observed, and more of it makes it surer", () => {
  const { costs } = book();
  let before = costs.expect("ver_1", "microvm", "restored").acquireMs;
  assert.ok(before < 40);
  for (let n = 0; n < 100; n++) {
    costs.observe("ver_1", "microvm", "restored", 40, 100 * MIB);
    const { acquireMs } = costs.expect("ver_1", "microvm", "restored");
    assert.ok(acquireMs >= before - 1e-9 && acquireMs < 40, `${n}: ${before} ${acquireMs}`);
    before = acquireMs;
  }
  const { acquireMs, memoryMb } = costs.expect("ver_1", "microvm", "restored");
  assert.ok(acquireMs > 38 && memoryMb > 95, JSON.stringify({ acquireMs, memoryMb }));
  assert.deepEqual(
    costs.expect("ver_1", "container", "cold"),
    { ...priorOf(rules, "container", "cold"), observed: 0 },
    "the other path is as it was",
  );
});

test("another version is expected to cost what the path cost others", () => {
  const { costs } = book();
  for (let n = 0; n < 20; n++) costs.observe("ver_1", "container", "cold", 100, undefined);
  const other = costs.expect("ver_2", "container", "cold");
  assert.ok(other.acquireMs > 50, String(other.acquireMs));
  assert.equal(other.observed, 0);
  assert.equal(
    other.memoryMb,
    priorOf(rules, "container", "cold").memoryMb,
    "memory that nobody told is unknown",
  );
});

test("what was seen long ago is forgotten: nobody has to be sent there to find out", () => {
  const { costs, clock } = book();
  for (let n = 0; n < 50; n++) costs.observe("ver_1", "container", "cold", 100, 200 * MIB);
  const dear = costs.expect("ver_1", "container", "cold").acquireMs;
  clock.ms += rules.halfLifeMs;
  const later = costs.expect("ver_1", "container", "cold").acquireMs;
  assert.ok(later < dear);
  clock.ms += 30 * rules.halfLifeMs;
  const { acquireMs, memoryMb, observed } = costs.expect("ver_1", "container", "cold");
  assert.ok(
    Math.abs(acquireMs - priorOf(rules, "container", "cold").acquireMs) < 0.01,
    String(acquireMs),
  );
  assert.ok(Math.abs(memoryMb - priorOf(rules, "container", "cold").memoryMb) < 0.01);
  assert.ok(observed < 0.01);
});

test("a new observation outweighs those of long ago", () => {
  const { costs, clock } = book();
  for (let n = 0; n < 20; n++) costs.observe("ver_1", "container", "cold", 200, 200 * MIB);
  clock.ms += 6 * rules.halfLifeMs;
  for (let n = 0; n < 4; n++) costs.observe("ver_1", "container", "cold", 100, 100 * MIB);
  const { acquireMs, memoryMb } = costs.expect("ver_1", "container", "cold");
  assert.ok(acquireMs < 110, String(acquireMs));
  assert.ok(memoryMb < 110, String(memoryMb));
});

test("one start while the machine stood still does not decide", () => {
  const { costs } = book();
  for (let n = 0; n < 10; n++) costs.observe("ver_1", "container", "cold", 5, undefined);
  costs.observe("ver_1", "container", "cold", 60_000, undefined);
  assert.ok(costs.expect("ver_1", "container", "cold").acquireMs < 50);
});

test("a thousand versions more than are remembered push out those that started first", () => {
  const { costs } = book();
  for (let n = 0; n < 11_000; n++) costs.observe(`ver_${n}`, "container", "cold", 50, undefined);
  assert.equal(costs.expect("ver_0", "container", "cold").observed, 0);
  assert.equal(costs.expect("ver_10999", "container", "cold").observed, 1);
});

test("choices by cost follow what paths really take, and do not flap when they take about the same", () => {
  const START = { container: "prepared", microvm: "restored" } as const;
  const { costs, clock } = book();
  const choose = (): Path => {
    const decided = decidePlacement({
      ...{ isolation: "auto", runtime: "node24", tier: "trusted", wanted: undefined },
      kinds: ["container", "microvm"],
      last: costs.last("ver_1"),
      stateOf: (path) => ({ start: START[path], ready: false }),
      costOf: (path, start) => costs.expect("ver_1", path, start),
    });
    assert.ok("path" in decided);
    if (decided.byCost) costs.chose("ver_1", decided.path);
    return decided.path;
  };
  /** Each call is a start on the chosen path, as it would be for a function that is called rarely. */
  const run = (calls: number, takes: (path: Path, call: number) => number): Path[] =>
    Array.from({ length: calls }, (_, call) => {
      const path = choose();
      costs.observe("ver_1", path, START[path], takes(path, call), undefined);
      clock.ms += 10_000;
      return path;
    });
  const switches = (paths: Path[]): number =>
    paths.filter((path, at) => at > 0 && path !== paths[at - 1]).length;

  const dearContainer = run(40, (path) => (path === "container" ? 100 : 9));
  assert.equal(dearContainer.at(0), "container");
  assert.equal(dearContainer.at(-1), "microvm");
  assert.equal(switches(dearContainer), 1);

  const alike = run(400, (path, call) => (path === "container" ? 8 : 8.5) + (call % 5));
  assert.ok(switches(alike) <= 2, `${switches(alike)} switches`);
});
