import assert from "node:assert/strict";
import { test } from "node:test";
import { compareRuns, compareTargets, compareWithin } from "./comparison.ts";
import { droppedByPart } from "./dropped.ts";
import { groupsOf, overTime, sketch } from "./groups.ts";
import { K6Lines } from "./k6-lines.ts";
import { findKnee } from "./knee.ts";
import type { Run, Sample } from "./sample.ts";
import { judge } from "./thresholds.ts";

function sample(more: Partial<Sample>): Sample {
  return {
    ...{ atMs: 0, lateMs: 0, target: "a", stream: "s", tag: null, function: "hello" },
    ...{ outcome: "ok", reason: null, lost: false, path: "container", start: "warm" },
    ...{ firstByteMs: 1, totalMs: 2 },
    ...more,
  };
}

const runOf = (samples: Sample[], dropped: Run["dropped"] = new Map()): Run => ({
  ...{ targets: [], beganAt: new Date(0), samples, dropped, bytes: { sent: 0, received: 0 } },
  ...{ elapsedMs: 1000, early: undefined },
});

const times = (count: number, from: number, more: Partial<Sample> = {}): Sample[] =>
  Array.from({ length: count }, (_, index) => sample({ totalMs: from + index, ...more }));

test("groups keep path and start kind apart; failures count but have no times", () => {
  const groups = groupsOf([
    ...times(100, 1),
    sample({ start: "cold", totalMs: 500 }),
    sample({ path: "microvm", totalMs: 7 }),
    sample({ outcome: "failed", totalMs: 60_000 }),
    sample({ outcome: "failed", path: null, start: null, totalMs: 1 }),
  ]);
  const shown = groups.map((one) => [one.path, one.start, one.ok, one.failed, one.p99_ms]);
  assert.deepEqual(shown, [
    [null, null, 0, 1, null],
    ["container", "cold", 1, 0, 500],
    ["container", "warm", 100, 1, 99],
    ["microvm", "warm", 1, 0, 7],
  ]);
});

test("a sketch holds every value of few, and exact quantiles of many", () => {
  assert.deepEqual(sketch([1, 2, 3]), [1, 2, 3]);
  assert.deepEqual(sketch([]), []);
  const many = sketch(Array.from({ length: 50_000 }, (_, index) => index + 1));
  assert.equal(many.length, 1000);
  assert.deepEqual([many[499], many[989], many[999]], [25_000, 49_500, 50_000]);
});

test("times over the run fall into the slice in which they were sent", () => {
  const [series] = overTime(
    [
      sample({ atMs: 0, totalMs: 1 }),
      sample({ atMs: 999, totalMs: 9 }),
      sample({ atMs: 1000, totalMs: 5 }),
      sample({ atMs: 1999, outcome: "failed" }),
    ],
    2000,
    2,
  );
  assert.deepEqual(series?.slices, [
    { at_s: 0.5, n: 2, p50_ms: 1, p99_ms: 9 },
    { at_s: 1.5, n: 1, p50_ms: 5, p99_ms: 5 },
  ]);
});

test("the knee is the last step that kept up, and one slow step before it is noise", () => {
  const step = (offered: number, answered: number, p50 = 2, failed = 0) => ({
    ...{ stream: `step-${offered}`, seconds: 1, offered_per_s: offered, answered_per_s: answered },
    ...{ dropped: 0, failed, p50_ms: p50, p99_ms: p50 * 2 },
  });
  const found = findKnee([step(100, 100), step(200, 150), step(300, 300), step(400, 310)]);
  assert.deepEqual([found.rate_per_s, found.found], [300, true]);
  const slower = findKnee([step(100, 100), step(200, 199, 11)]);
  assert.deepEqual([slower.rate_per_s, slower.found], [100, true]);
  const beyond = findKnee([step(100, 100), step(200, 199)]);
  assert.deepEqual([beyond.rate_per_s, beyond.found], [200, false]);
  assert.equal(findKnee([step(100, 100, 2, 1)]).rate_per_s, null);
  assert.equal(findKnee([]).rate_per_s, null);
  assert.equal(findKnee([step(2.5, 2), step(4, 4)]).steps[0]?.saturated, false, "half a request");
});

test("thresholds are crossed by what they name only", () => {
  const run = runOf(
    [
      ...times(99, 1),
      sample({ totalMs: 1000 }),
      sample({ stream: "other", outcome: "failed" }),
      sample({ stream: "other", outcome: "refused" }),
    ],
    new Map([["s", 1]]),
  );
  const crossed = (threshold: Parameters<typeof judge>[0]): boolean =>
    judge(threshold, run).crossed;
  assert.equal(crossed({ measure: "failed", most: 0 }), true);
  assert.equal(crossed({ measure: "failed", stream: "s", most: 0 }), false);
  assert.equal(crossed({ measure: "refused", least: 1 }), false);
  assert.equal(crossed({ measure: "refused", least: 2 }), true);
  assert.deepEqual(judge({ measure: "dropped", part: true, stream: "s", most: 0.01 }, run), {
    rule: "part dropped of s at most 0.01",
    value: 0.01,
    crossed: false,
  });
  assert.equal(judge({ measure: "p99_ms", most: 98 }, run).value, 99);
  assert.equal(judge({ measure: "p99_over_p50", most: 10 }, run).value, 1.98);
  const nothing = judge({ measure: "p99_ms", stream: "other", most: 1e9 }, run);
  assert.deepEqual([nothing.value, nothing.crossed], [null, true]);
});

test("comparisons pair what differs in one part alone", () => {
  const groups = groupsOf([
    ...times(50, 100),
    ...times(50, 200, { path: "microvm" }),
    ...times(50, 10, { path: "microvm", start: "restored" }),
    ...times(50, 300, { target: "b" }),
  ]);
  const [paths, ...none] = compareWithin(groups, { by: "path", a: "container", b: "microvm" });
  assert.deepEqual(none, []);
  assert.equal(paths?.p50?.value, 1.806);
  assert.ok(paths?.p50 && paths.p50.low > 1.6 && paths.p50.high < 2);
  assert.deepEqual(
    compareTargets(groups, "a", "b").map(({ p50 }) => p50?.value),
    [2.613],
  );
  const later = groupsOf(times(50, 248));
  assert.deepEqual(
    compareRuns(groups, later).map(({ p50 }) => p50?.value),
    [2.194],
  );
});

test("what a step dropped is what was due and not sent, and all steps together what k6 counted, or more", () => {
  const plan = {
    ...{ functions: [], tenants: [], thresholds: [] },
    streams: [
      {
        ...{ name: "all", startMs: 0, requests: [], pick: "in-turn" as const },
        arrival: {
          ...{ kind: "rate" as const, mostInFlight: 1 },
          steps: [
            { name: "before", perSecond: 10, durationMs: 1000 },
            { name: "burst", perSecond: 100, durationMs: 1000 },
            { name: "after", perSecond: 10, durationMs: 1000 },
          ],
        },
      },
    ],
  };
  const sent = (before: number, burst: number, after: number, dropped: number) => {
    const samples = [
      ...times(before, 1, { stream: "before" }),
      ...times(burst, 1, { stream: "burst" }),
      ...times(after, 1, { stream: "after" }),
    ];
    return [...droppedByPart(plan, samples, { dropped: { all: dropped } }, false).values()];
  };
  assert.deepEqual(sent(10, 60, 10, 40), [0, 40, 0]);
  assert.deepEqual(sent(10, 59, 11, 40), [0, 40, 0], "one of the burst was sent late");
  assert.deepEqual(sent(10, 60, 8, 42), [0, 40, 2]);
  assert.deepEqual(sent(10, 100, 9, 0), [0, 0, 0], "the last is due at the very end");
  assert.deepEqual(sent(10, 100, 10, 1), [0, 0, 1]);
  assert.deepEqual(sent(10, 100, 5, 0), [0, 0, 4], "k6 was behind at the end");
});

test("lines are cut wherever they come in parts; what is not the scripts' is k6's own", () => {
  const told: unknown[] = [];
  const lines = new K6Lines((one) => void told.push(one));
  const call = JSON.stringify(["call", sample({ totalMs: 7 })]);
  lines.add(`${call.slice(0, 20)}`);
  lines.add(`${call.slice(20)}\nsomething is wrong\n["call",{"atMs":"1"}]\n["sent",{}]\nrest`);
  assert.deepEqual(told, [
    ["call", sample({ totalMs: 7 })],
    ["sent", {}],
  ]);
  assert.match(lines.said, /^something is wrong\n\["call".*\nrest$/s);
});
