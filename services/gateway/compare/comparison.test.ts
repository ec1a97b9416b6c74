import assert from "node:assert/strict";
import { test } from "node:test";
import { type CompareProgress, comparisonSchema, type ForcedStart } from "#contracts/comparison";
import type { Path, StartKind } from "#contracts/function";
import { CloisterError, type ErrorCode } from "#errors/catalogue";
import { quotaExceeded } from "../quota/quota-error.ts";
import {
  CALLS_BEFORE_WARM,
  type ComparisonPlan,
  compare,
  type RunOnce,
  startsOf,
  WARM_UP_ROUNDS,
} from "./comparison.ts";
import type { MeasuredAnswer } from "./measured-call.ts";

const plan = (change: Partial<ComparisonPlan> = {}): ComparisonPlan => ({
  name: "f",
  version: 3,
  call: "GET /",
  config: { runtime: "node24", reuse: "warm" },
  n: 6,
  paths: ["container", "microvm"],
  ...change,
});

const answer = (path: Path, start: StartKind, change: Partial<MeasuredAnswer> = {}) => ({
  status: 200,
  path,
  start,
  phases: { queue_ms: 1 },
  ms: path === "microvm" ? 20 : 10,
  measured: { nodeId: "n1", asideMs: 0, cpuMs: 2, privateKib: 100 },
  excerpt: "",
  ...change,
});

/** Runs with what `run` gives, and tells each run and each step. */
async function compared(
  run: (path: Path, start: ForcedStart | undefined, nth: number) => MeasuredAnswer,
  change: Partial<ComparisonPlan> = {},
  signal = new AbortController().signal,
) {
  const runs: string[] = [];
  const steps: CompareProgress[] = [];
  const once: RunOnce = async (path, start) => {
    runs.push(`${path} ${start ?? "-"}`);
    return run(path, start, runs.length);
  };
  const result = await compare(plan(change), {
    run: once,
    signal,
    onProgress: (step) => steps.push(step),
  });
  comparisonSchema.parse(JSON.parse(JSON.stringify(result)));
  return { result, runs, steps };
}

const overQuota = (quota: "requestsPerSecond" | "concurrency" | "paths"): never => {
  throw quotaExceeded({ quota, of: "tenant", limit: 1 });
};

const refuse = (code: ErrorCode, detail: string): never => {
  throw new CloisterError(code, detail);
};

test("every round runs each start once, in turns, and those of the warm-up do not count", async () => {
  const { result, runs, steps } = await compared((path, start) => answer(path, start ?? "warm"));
  const rounds = 6 + WARM_UP_ROUNDS;
  assert.equal(runs.length, rounds * (4 + 2 * (CALLS_BEFORE_WARM + 1)));
  assert.equal(result.invocations, runs.length);
  for (let round = 0; round < rounds; round++) {
    const inRound = steps.slice(round * 6, round * 6 + 6).map(({ path, start }) => path + start);
    assert.equal(new Set(inRound).size, 6);
  }
  assert.equal(
    new Set([0, 6, 12, 18, 24, 30].map((at) => `${steps[at]?.path}${steps[at]?.start}`)).size,
    6,
  );
  for (const { starts, available } of result.paths) {
    assert.ok(available);
    assert.deepEqual(
      starts.map(({ n, failures }) => [n, failures]),
      [
        [6, 0],
        [6, 0],
        [6, 0],
      ],
    );
  }
  assert.deepEqual(
    result.ratios.map(({ of, to, ratio }) => [of, to, ratio]),
    [
      ["microvm cold", "container cold", 2],
      ["microvm restored", "container prepared", 2],
      ["microvm warm", "container warm", 2],
    ],
  );
  assert.equal(steps.at(-1)?.done, steps.at(-1)?.of);
});

test("a path that cannot be had is told with its reason and not tried again; nothing stands in for it", async () => {
  const { result, runs } = await compared((path, start) =>
    path === "microvm"
      ? refuse("isolation_unavailable", "no KVM here")
      : answer(path, start ?? "warm"),
  );
  assert.equal(runs.filter((run) => run.startsWith("microvm")).length, 1);
  const [container, microvm] = result.paths;
  assert.ok(container?.available && container.starts.length === 3);
  assert.deepEqual([microvm?.available, microvm?.starts], [false, []]);
  assert.match(microvm?.reason ?? "", /no KVM here/);
  assert.deepEqual([microvm?.cpu_ms, microvm?.private_kib, result.ratios], [null, null, []]);
  assert.equal(result.stopped, undefined);
});

test("a path that the tenant's quota does not have ends only that path", async () => {
  for (const refused of [() => overQuota("paths"), () => refuse("quota_exceeded", "of a worker")]) {
    const { result } = await compared((path, start) =>
      path === "microvm" ? refused() : answer(path, start ?? "warm"),
    );
    assert.deepEqual(
      result.paths.map(({ available }) => available),
      [true, false],
    );
    assert.match(result.paths[1]?.reason ?? "", /quota_exceeded/);
  }
});

test("a start that cannot be had has no times and says why; the others are measured", async () => {
  const { result } = await compared((path, start) =>
    start === "restored"
      ? refuse("start_unavailable", "no snapshot")
      : answer(path, start ?? "warm"),
  );
  const restored = result.paths[1]?.starts.find(({ start }) => start === "restored");
  assert.deepEqual([restored?.n, restored?.p50_ms], [0, null]);
  assert.match(restored?.first_failure ?? "", /no snapshot/);
  assert.equal(result.paths[1]?.starts.find(({ start }) => start === "cold")?.n, 6);
});

test("failures count as attempts and are in no time; an answer of 500 is one", async () => {
  const { result } = await compared((path, start, nth) => {
    if (path === "container" && start === "cold" && nth % 2 === 0)
      return answer(path, "cold", { status: 500, excerpt: "oh\nno", ms: 9999 });
    return answer(path, start ?? "warm");
  });
  const cold = result.paths[0]?.starts[0];
  assert.ok(cold && cold.failures > 0 && cold.n === 6);
  assert.equal(cold.times_ms.length, 6 - cold.failures);
  assert.equal(cold.max_ms, 10);
  assert.match(cold.first_failure ?? "", /answered 500: oh no/);
});

test("a function that always fails ends it after the warm-up, with the reason", async () => {
  const { result, runs } = await compared(() => refuse("function_error", "on purpose"), {
    n: 1000,
  });
  assert.equal(runs.length, WARM_UP_ROUNDS * 6);
  assert.match(result.stopped ?? "", /Every call .* failed: on purpose \(function_error\)/);
});

test("a quota that is used up, and a caller that leaves, end it with what was measured", async () => {
  const used = await compared((path, start, nth) =>
    nth > 60 ? overQuota("requestsPerSecond") : answer(path, start ?? "warm"),
  );
  assert.match(used.result.stopped ?? "", /requestsPerSecond/);
  assert.ok((used.result.paths[0]?.starts[0]?.n ?? 0) > 0);
  await assert.rejects(
    compared(() => overQuota("concurrency")),
    {
      code: "quota_exceeded",
    },
  );
  const leaving = new AbortController();
  const left = await compared(
    (path, start, nth) => {
      if (nth === 70) leaving.abort();
      return answer(path, start ?? "warm");
    },
    {},
    leaving.signal,
  );
  assert.equal(left.runs.length, 70);
  assert.match(left.result.stopped ?? "", /interrupted/);
});

test("only a warm call counts as warm: others are repeated, and never taken for it", async () => {
  let shown = 0;
  const { result } = await compared((path, start) => {
    if (start !== undefined) return answer(path, start);
    if (path === "container")
      return answer(path, shown++ % 3 === 0 ? "prepared" : "warm", { ms: 5 });
    return answer(path, "restored");
  });
  const of = (at: number) => result.paths[at]?.starts.find(({ start }) => start === "warm");
  assert.deepEqual([of(0)?.n, of(0)?.failures], [6, 0]);
  assert.deepEqual([of(1)?.n, of(1)?.failures, of(1)?.p50_ms], [6, 6, null]);
  assert.match(of(1)?.first_failure ?? "", /never warm/);
});

test("a function that is never used again has no warm start; in a micro-VM it is reset", () => {
  assert.deepEqual(startsOf("container", "fresh"), ["cold", "prepared"]);
  assert.deepEqual(startsOf("microvm", "fresh"), ["cold", "restored", "reset"]);
  assert.deepEqual(startsOf("microvm", "warm"), ["cold", "restored", "warm"]);
});
