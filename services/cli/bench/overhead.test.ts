import assert from "node:assert/strict";
import { test } from "node:test";
import { figures } from "./overhead.ts";

test("ratios are to the bare process, of medians and of the least; a path that failed has none", () => {
  const times = { process: [10, 20, 30], container: [11, 20, 90], microvm: [] };
  const outcome = figures("cpu", (path) => ({
    times: times[path],
    failures: path === "microvm" ? ["a", "b"] : [],
    slicesMs: [],
  }));
  assert.deepEqual(outcome, {
    name: "cpu",
    n: 3,
    failures: { process: 0, container: 0, microvm: 2 },
    process_ms: 20,
    container_ms: 20,
    microvm_ms: null,
    container_ratio: 1,
    microvm_ratio: null,
    process_least_ms: 10,
    container_least_ms: 11,
    microvm_least_ms: null,
    container_interval: null,
    microvm_interval: null,
    container_least_ratio: 1.1,
    microvm_least_ratio: null,
  });
});

test("where slices are told, their tenth percentile counts as the least", () => {
  const slices = { process: 2, container: 2, microvm: 2.5 };
  const { microvm_least_ratio, microvm_ratio } = figures("cpu", (path) => ({
    times: [path === "microvm" ? 30 : 20],
    failures: [],
    slicesMs: [0.1, ...Array.from({ length: 18 }, () => slices[path]), 100],
  }));
  assert.deepEqual([microvm_ratio, microvm_least_ratio], [1.5, 1.25]);
});
