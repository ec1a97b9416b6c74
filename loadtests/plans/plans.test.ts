import assert from "node:assert/strict";
import { test } from "node:test";
import { functionNameSchema } from "../../services/lib/contracts/function.ts";
import { executorsOf, thresholdsOf } from "../lib/executors.ts";
import { dueMs, partsOf, type Stream, stepAt } from "../lib/plan.ts";
import { SCENARIOS } from "./index.ts";
import { heavyTailMs } from "./mixed.ts";

/** How long a stream sends, ms. */
function streamMs({ arrival }: Stream): number {
  if (arrival.kind === "rate") return arrival.steps.reduce((sum, one) => sum + one.durationMs, 0);
  return arrival.kind === "clients" ? arrival.durationMs : 0;
}

for (const scenario of SCENARIOS) {
  test(`${scenario.name} calls what it deploys, within its time`, () => {
    const plan = scenario.plan({ durationMs: 5000, isolation: "microvm" });
    assert.ok(scenario.durationMs <= scenario.longestMs);
    assert.ok(scenario.shows.length > 20 && scenario.shows.length < 140);
    const functions = new Set(plan.functions.map(({ name }) => name));
    const tenants = new Set(plan.tenants.map(({ name }) => name));
    const parts = plan.streams.flatMap(partsOf);
    const streams = new Set(parts);
    assert.equal(functions.size, plan.functions.length);
    assert.equal(streams.size, parts.length);
    for (const { name, tenant } of plan.functions) {
      assert.ok(functionNameSchema.safeParse(`load-0123456789-${name}`).success);
      assert.ok(tenant === undefined || tenants.has(tenant));
    }
    for (const stream of plan.streams) {
      assert.ok(stream.startMs + streamMs(stream) <= 5000);
      assert.ok(stream.requests.length > 0);
      for (const request of stream.requests) {
        assert.ok(functions.has(request.function));
        if (scenario.heeds.includes("isolation")) assert.equal(request.isolation, "microvm");
      }
    }
    assert.ok(plan.thresholds.some(({ measure }) => measure === "failed"));
    for (const { stream, most, least } of plan.thresholds) {
      assert.ok(stream === undefined || streams.has(stream));
      assert.ok(most !== undefined || least !== undefined);
    }
    if (plan.versus?.by === "stream")
      assert.ok(streams.has(plan.versus.a) && streams.has(plan.versus.b));
  });
}

test("a request is due, and belongs to the step, where the rates before it say", () => {
  const steps = [
    { name: "slow", perSecond: 10, durationMs: 1000 },
    { name: "none", perSecond: 0, durationMs: 500 },
    { name: "fast", perSecond: 100, durationMs: 1000 },
  ];
  assert.deepEqual(
    [0, 4, 9, 10, 59, 109].map((n) => Math.round(dueMs(steps, n))),
    [100, 500, 1000, 1510, 2000, 2500],
  );
  assert.deepEqual(
    [0, 5].map((n) => dueMs(steps.slice(0, 1), n)),
    [0, 500],
  );
  const names = [0, 999.9, 1000, 1499, 1500, 2499, 9999].map((at) => stepAt(steps, at).name);
  assert.deepEqual(names, ["slow", "slow", "none", "none", "fast", "fast", "fast"]);
});

test("streams become k6's executors, with as many callers as the plan allows and no more", () => {
  const of = (name: string): Record<string, unknown>[] => {
    const scenario = SCENARIOS.find((one) => one.name === name) ?? assert.fail("it is one");
    const plan = scenario.plan({ durationMs: 10_000, ...(name === "ramp" ? { rate: 100 } : {}) });
    return Object.values(executorsOf(plan, 2)) as unknown as Record<string, unknown>[];
  };
  const [steady] = of("warm-steady");
  assert.equal(steady?.executor, "constant-arrival-rate");
  assert.deepEqual([steady?.rate, steady?.timeUnit, steady?.maxVUs], [1000, "10000ms", 100]);
  const [ramp, ...none] = of("ramp");
  assert.deepEqual([ramp?.executor, none.length], ["ramping-arrival-rate", 0]);
  const stages = ramp?.stages as { target: number; duration: string }[];
  assert.equal(stages.length, 20);
  assert.deepEqual(stages.slice(-2), [
    { target: 100_000, duration: "0s" },
    { target: 100_000, duration: "1000ms" },
  ]);
  const [quiet, noise] = of("noisy-neighbour");
  assert.deepEqual(
    [quiet?.executor, noise?.executor, noise?.vus, noise?.startTime],
    ["ramping-arrival-rate", "constant-vus", 16, "5000ms"],
  );
  const [storm] = of("cold-start-storm");
  assert.deepEqual([storm?.executor, storm?.vus, storm?.iterations], ["per-vu-iterations", 80, 1]);
});

test("k6 gets the thresholds that it can judge", () => {
  const of = (name: string): Record<string, unknown> => {
    const scenario = SCENARIOS.find((one) => one.name === name) ?? assert.fail("it is one");
    return thresholdsOf(scenario.plan({ durationMs: 10_000 }));
  };
  assert.deepEqual(of("warm-steady"), {
    "dropped_iterations{scenario:steady}": ["count>=0"],
    "cloister_calls{outcome:failed}": ["count<=0"],
    dropped_iterations: ["count<=10"],
    cloister_call_ms: ["p(99)<=250"],
  });
  assert.deepEqual(of("burst")["cloister_call_ms{stream:after}"], ["p(99)<=500"]);
  assert.deepEqual(of("quota-edge")["cloister_calls{outcome:refused}"], ["count>=1"]);
});

test("the tail is heavy: the tenth that takes longest has most of the time", () => {
  const sorted = heavyTailMs.toSorted((a, b) => b - a);
  const sum = (values: number[]): number => values.reduce((all, one) => all + one, 0);
  assert.ok(sum(sorted.slice(0, sorted.length / 10)) > sum(sorted) / 2 - 1);
});
