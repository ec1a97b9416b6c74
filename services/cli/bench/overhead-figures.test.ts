import assert from "node:assert/strict";
import { test } from "node:test";
import { figures } from "./overhead-figures.ts";

test("ratios are to the bare process of the same round, and of the least; a path that failed has none", () => {
  const times = { process: [10, 20, 30], container: [11, 20, 90], microvm: [] };
  const of = (path: keyof typeof times) => ({
    times: times[path],
    rounds: [...times[path].keys()],
    failures: path === "microvm" ? ["a", "b"] : [],
    slicesMs: new Map(),
  });
  const outcome = figures("cpu", of, 1);
  assert.deepEqual(outcome, {
    name: "cpu",
    n: 3,
    failures: { process: 0, container: 0, microvm: 2 },
    process_ms: 20,
    container_ms: 20,
    microvm_ms: null,
    container_ratio: 1.1,
    microvm_ratio: null,
    process_least_ms: 10,
    container_least_ms: 11,
    microvm_least_ms: null,
    container_interval: null,
    microvm_interval: null,
    container_least_ratio: 1.1,
    microvm_least_ratio: null,
    container_least_interval: null,
    microvm_least_interval: null,
  });
});

test("where slices are told, their tenth percentile counts as the least", () => {
  const slices = { process: 2, container: 2, microvm: 2.5 };
  const of = (path: keyof typeof slices) => ({
    times: [path === "microvm" ? 30 : 20],
    rounds: [0],
    failures: [],
    slicesMs: new Map([[0, [0.1, ...Array.from({ length: 18 }, () => slices[path]), 100]]]),
  });
  const { microvm_least_ratio, microvm_ratio } = figures("cpu", of, 1);
  assert.deepEqual([microvm_ratio, microvm_least_ratio], [1.5, 1.25]);
});

test("a round in which a path failed has no ratio, and no other path's of another round", () => {
  const outcomes = {
    process: { times: [10, 100], rounds: [0, 2] },
    container: { times: [10, 50, 100], rounds: [0, 1, 2] },
    microvm: { times: [77, 300], rounds: [1, 2] },
  };
  const of = (path: keyof typeof outcomes) => ({
    ...outcomes[path],
    failures: [],
    slicesMs: new Map(),
  });
  const { container_ratio, microvm_ratio } = figures("cpu", of, 1);
  assert.deepEqual([container_ratio, microvm_ratio], [1, 3]);
});

test("a sandbox that is slow by chance counts as one of many, also among slices", () => {
  // The micro-VM's first sandbox is fast, the others are slower than the process by a tenth.
  const slicesOf = (path: string, round: number): number[] =>
    Array.from({ length: 20 }, () => (path !== "microvm" ? 2 : round < 2 ? 1.8 : 2.2));
  const of = (path: string) => ({
    times: [],
    rounds: [],
    failures: [],
    slicesMs: new Map([...Array(12).keys()].map((round) => [round, slicesOf(path, round)])),
  });
  const found = figures("cpu", of, 2);
  assert.deepEqual([found.microvm_least_ratio, found.microvm_least_ms], [1.1, 2.2]);
  assert.ok(found.microvm_least_interval && found.microvm_least_interval.low < 1.1);
  assert.deepEqual(found.container_least_interval, { low: 1, high: 1 });
});

test("rounds of the same sandboxes are drawn together: they count once, however many they are", () => {
  const rounds = [...Array(40).keys()];
  // Each second sandbox is slower by a tenth, in all of its rounds.
  const slower = (round: number, stays: number): boolean => Math.floor(round / stays) % 2 === 1;
  const width = (stays: number): number | null => {
    const of = (path: string) => ({
      times: rounds.map(
        (round) => (path === "microvm" && slower(round, 4) ? 110 : 100) + round / 100,
      ),
      rounds,
      failures: [],
      slicesMs: new Map(),
    });
    const { microvm_interval: found } = figures("cpu", of, stays);
    return found && found.high - found.low;
  };
  const [apart, together] = [width(1), width(4)];
  assert.ok(apart !== null && together !== null && apart <= together);
  assert.equal(width(10), null);
});
