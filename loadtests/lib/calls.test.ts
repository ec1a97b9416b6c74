import assert from "node:assert/strict";
import { test } from "node:test";
import { SCENARIOS } from "../plans/index.ts";
import { picker } from "./picker.ts";
import type { LoadRequest } from "./plan.ts";
import { givenBy, isLoopback, parseDuration } from "./settings.ts";
import { type Looked, wrongness } from "./wrongness.ts";

test("an answer must be whole, by the path asked for, and a refusal must say when to come again", () => {
  const request: LoadRequest = { function: "f", path: "/" };
  const wrong = (more: Partial<LoadRequest>, looked: Partial<Looked>): string =>
    wrongness(
      { ...request, ...more },
      {
        ...{ status: 200, error: "", path: "container", mayComeAgain: () => false },
        ...{
          bytes: () => 10,
          problem: () => "",
          digest: () => "same",
          sentDigest: "same",
          ...looked,
        },
      },
    ) ?? "right";
  assert.equal(wrong({}, {}), "right");
  assert.match(wrong({ isolation: "microvm" }, {}), /answered by container/);
  assert.match(wrong({}, { path: null }), /no Cloister-Isolation/);
  const echo = { bodyBytes: 10, answer: "echo" as const };
  assert.equal(wrong(echo, {}), "right");
  assert.match(wrong(echo, { digest: () => "other" }), /another body/);
  assert.match(wrong({ ...echo, bodyBytes: 11 }, {}), /another body/);
  assert.match(wrong({ answer: { bytes: 9 } }, {}), /length/);
  const over = { status: 429, path: null, problem: () => '{"code":"quota_exceeded"}' };
  assert.equal(wrong({}, over), "429 quota_exceeded");
  assert.equal(wrong({ mayBeRefused: true }, { ...over, mayComeAgain: () => true }), "right");
  assert.equal(wrong({ mayBeRefused: true }, over), "429 without Retry-After");
  assert.equal(
    wrong({}, { status: 0, error: "dial: connection refused" }),
    "dial: connection refused",
  );
});

test("each target gets the same requests, by weight and in turn, the same each time", () => {
  const requests = [
    { function: "often", path: "/", weight: 9 },
    { function: "rare", path: "/", weight: 1 },
  ];
  const draw = (pick: "in-turn" | "by-weight"): string[] => {
    const of = picker({ requests, pick }, 2);
    return Array.from({ length: 2000 }, (_, n) => {
      const { request, target } = of(n);
      return `${request.function}${target}`;
    });
  };
  assert.deepEqual(draw("in-turn").slice(0, 5), ["often0", "often1", "rare0", "rare1", "often0"]);
  const drawn = draw("by-weight");
  assert.deepEqual(drawn, draw("by-weight"));
  const count = (word: string): number => drawn.filter((one) => one === word).length;
  assert.equal(count("often0"), count("often1"));
  assert.ok(count("rare0") > 60 && count("rare0") < 140, `${count("rare0")} of 1000`);
});

test("load goes to this machine only", () => {
  for (const url of ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:8080"])
    assert.ok(isLoopback(url), url);
  for (const url of [
    "http://192.0.2.1:8080",
    "http://127.0.0.1.example:80",
    "http://127.0.0.1@example:80",
    "http://localhost.example",
    "https://example",
    "http://127.0.0.1:80/@example",
  ])
    assert.ok(!isLoopback(url), url);
});

test("a run's environment is read whole, or refused with a sentence", () => {
  const [steady] = SCENARIOS.filter(({ name }) => name === "warm-steady");
  assert.ok(steady);
  const service = { CLOISTER_URL: "http://127.0.0.1:1/", CLOISTER_KEY: "k" };
  const given = givenBy(
    {
      ...service,
      CLOISTER_LOAD_DURATION: "2500ms",
      CLOISTER_LOAD_VUS: "7",
      CLOISTER_AB_URL: "http://127.0.0.1:2",
      CLOISTER_AB_KEY: "b",
    },
    steady,
  );
  assert.deepEqual(given.settings, { durationMs: 2500, clients: 7 });
  assert.deepEqual(
    given.services.map(({ label, url, key }) => [label, url, key]),
    [
      ["a", "http://127.0.0.1:1", "k"],
      ["b", "http://127.0.0.1:2", "b"],
    ],
  );
  assert.match(given.run, /^load-[0-9a-f]{8}$/);
  const refused = (env: Record<string, string>, says: RegExp): void =>
    assert.throws(() => givenBy({ ...service, ...env }, steady), says);
  assert.throws(() => givenBy({}, steady), /Set CLOISTER_URL/);
  assert.throws(() => givenBy({ CLOISTER_URL: "http://127.0.0.1:1" }, steady), /Set CLOISTER_KEY/);
  refused({ CLOISTER_URL: "http://192.0.2.1" }, /not an address of this machine/);
  refused({ CLOISTER_LOAD_DURATION: "long" }, /Write it like/);
  refused({ CLOISTER_LOAD_DURATION: "20m" }, /at most 600 s/);
  refused({ CLOISTER_LOAD_DURATION: "200ms" }, /at least 1 s/);
  refused({ CLOISTER_LOAD_VUS: "0" }, /from 1 to 500/);
  refused({ CLOISTER_LOAD_RATE: "1e9" }, /from 1 to 20000/);
  refused({ CLOISTER_LOAD_ISOLATION: "none" }, /neither container nor microvm/);
  const [storm] = SCENARIOS.filter(({ name }) => name === "cold-start-storm");
  assert.ok(storm);
  assert.throws(() => givenBy({ ...service, CLOISTER_LOAD_RATE: "5" }, storm), /no use for/);
  assert.equal(parseDuration("1.5s"), 1500);
  assert.equal(parseDuration("1h"), undefined);
});
