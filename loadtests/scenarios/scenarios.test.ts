import assert from "node:assert/strict";
import { test } from "node:test";
import { functionNameSchema } from "../../services/lib/contracts/function.ts";
import { arrivalTimes, plannedRequests, stagesMs, steady, streamMs } from "../lib/arrivals.ts";
import { SCENARIOS } from "./index.ts";
import { heavyTailMs } from "./mixed.ts";

for (const scenario of SCENARIOS) {
  test(`${scenario.name} calls what it deploys, within its time`, () => {
    const plan = scenario.plan({ durationMs: 5000, isolation: "microvm" });
    assert.ok(scenario.durationMs <= scenario.longestMs);
    assert.ok(scenario.shows.length > 20 && scenario.shows.length < 140);
    const functions = new Set(plan.functions.map(({ name }) => name));
    const tenants = new Set(plan.tenants.map(({ name }) => name));
    const streams = new Set(plan.streams.map(({ name }) => name));
    assert.equal(functions.size, plan.functions.length);
    assert.equal(streams.size, plan.streams.length);
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

test("a steady rate comes evenly, and exactly so often", () => {
  const times = [...arrivalTimes([steady(100, 1000)])];
  assert.equal(times.length, 100);
  assert.ok(times.every((at, index) => Math.abs(at - index * 10) < 1e-6));
});

test("a rising rate comes as its integral says, across stages", () => {
  const stages = [
    { fromPerSecond: 0, toPerSecond: 200, durationMs: 1000 },
    { fromPerSecond: 200, toPerSecond: 0, durationMs: 1000 },
    steady(50, 1000),
  ];
  const times = [...arrivalTimes(stages)];
  assert.equal(times.length, 250);
  assert.ok(times.every((at, index) => index === 0 || at >= (times[index - 1] ?? 0)));
  assert.ok((times.at(-1) ?? 0) <= stagesMs(stages));
  // t²/10000 requests after t ms of the first stage.
  assert.ok(Math.abs((times[25] ?? 0) - 500) < 1e-6);
  assert.equal(times.filter((at) => at < 1000).length, 100);
  const stream = {
    name: "s",
    startMs: 0,
    arrival: { kind: "rate", stages, mostInFlight: 1 },
    requests: [],
    pick: "in-turn",
  } as const;
  assert.equal(plannedRequests(stream), 250);
});

test("a stage without requests, and one of a fraction of a request", () => {
  assert.deepEqual([...arrivalTimes([steady(0, 1000)])], []);
  assert.deepEqual([...arrivalTimes([steady(0, 1000), steady(1, 500)])], [1000]);
});

test("the tail is heavy: the tenth that takes longest has most of the time", () => {
  const sorted = heavyTailMs.toSorted((a, b) => b - a);
  const sum = (values: number[]): number => values.reduce((all, one) => all + one, 0);
  assert.ok(sum(sorted.slice(0, sorted.length / 10)) > sum(sorted) / 2 - 1);
});
