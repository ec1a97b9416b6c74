import assert from "node:assert/strict";
import { test } from "node:test";
import { wrongness } from "./caller.ts";
import { compareRuns, compareTargets, compareWithin } from "./comparison.ts";
import { groupsOf, overTime, sketch } from "./groups.ts";
import { findKnee } from "./knee.ts";
import { picker } from "./picker.ts";
import type { Run, Sample } from "./sample.ts";
import { judge } from "./thresholds.ts";

function sample(more: Partial<Sample>): Sample {
  return {
    ...{ atMs: 0, target: "a", stream: "s", tag: undefined, function: "hello", outcome: "ok" },
    ...{ reason: undefined, status: 200, path: "container", start: "warm" },
    ...{ firstByteMs: 1, totalMs: 2, bytesIn: 10, bytesOut: 0 },
    ...more,
  };
}

const runOf = (samples: Sample[], dropped: Run["dropped"] = []): Run => ({
  ...{ samples, dropped, lateMs: [], elapsedMs: 1000, early: undefined },
});

const times = (count: number, from: number, more: Partial<Sample> = {}): Sample[] =>
  Array.from({ length: count }, (_, index) => sample({ totalMs: from + index, ...more }));

test("groups keep path and start kind apart; failures count but have no times", () => {
  const groups = groupsOf([
    ...times(100, 1),
    sample({ start: "cold", totalMs: 500 }),
    sample({ path: "microvm", totalMs: 7 }),
    sample({ outcome: "failed", totalMs: 60_000 }),
    sample({ outcome: "failed", path: undefined, start: undefined, totalMs: 1 }),
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
    ...{ stream: `step-${offered}`, offered_per_s: offered, answered_per_s: answered },
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
});

test("thresholds are crossed by what they name only", () => {
  const run = runOf(
    [
      ...times(99, 1),
      sample({ totalMs: 1000 }),
      sample({ stream: "other", outcome: "failed" }),
      sample({ stream: "other", outcome: "refused" }),
    ],
    [{ atMs: 1, target: "a", stream: "s" }],
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

test("an answer must be whole, by the path asked for, and a refusal must say when to come again", () => {
  const answer = { status: 200, path: "container", bytesIn: 10 } as const;
  const request = { function: "f", path: "/" };
  assert.equal(wrongness(request, answer, true, "", {}), undefined);
  const asked = { ...request, isolation: "microvm" } as const;
  assert.match(wrongness(asked, answer, true, "", {}) ?? "", /answered by container/);
  const echo = { ...request, bodyBytes: 10, answer: "echo" } as const;
  assert.equal(wrongness(echo, answer, true, "", {}), undefined);
  assert.match(wrongness(echo, answer, false, "", {}) ?? "", /another body/);
  assert.match(wrongness({ ...echo, bodyBytes: 11 }, answer, true, "", {}) ?? "", /another body/);
  assert.match(
    wrongness({ ...request, answer: { bytes: 9 } }, answer, true, "", {}) ?? "",
    /length/,
  );
  const over = { status: 429, path: undefined, bytesIn: 1 };
  assert.equal(
    wrongness(request, over, true, '{"code":"quota_exceeded"}', {}),
    "429 quota_exceeded",
  );
  const may = { ...request, mayBeRefused: true };
  assert.equal(wrongness(may, over, true, "", { "retry-after": "1" }), undefined);
  assert.equal(wrongness(may, over, true, "", {}), "429 without Retry-After");
});

test("each target gets the same requests, by weight and in turn, the same each time", () => {
  const requests = [
    { function: "often", path: "/", weight: 9 },
    { function: "rare", path: "/", weight: 1 },
  ];
  const draw = (pick: "in-turn" | "by-weight"): string[] => {
    const next = picker({ requests, pick }, ["a", "b"]);
    return Array.from({ length: 2000 }, next).map((one) => one.request.function + one.caller);
  };
  assert.deepEqual(draw("in-turn").slice(0, 5), ["oftena", "oftenb", "rarea", "rareb", "oftena"]);
  const drawn = draw("by-weight");
  assert.deepEqual(drawn, draw("by-weight"));
  const count = (word: string): number => drawn.filter((one) => one === word).length;
  assert.equal(count("oftena"), count("oftenb"));
  assert.ok(count("rarea") > 60 && count("rarea") < 140, `${count("rarea")} of 1000`);
});
