import assert from "node:assert/strict";
import { test } from "node:test";
import { CloisterError } from "#errors/catalogue";
import { type PlacementInput, place } from "./place.ts";
import { TierCache } from "./tier-cache.ts";

const input = (part: Partial<PlacementInput>): PlacementInput => ({
  isolation: "auto",
  runtime: "node24",
  wanted: undefined,
  tier: "trusted",
  kinds: ["container"],
  ...part,
});

const CASES: [string, Partial<PlacementInput>, string][] = [
  ["auto, trusted", {}, "container"],
  ["auto, standard", { tier: "standard" }, "isolation_unavailable"],
  ["auto, untrusted", { tier: "untrusted" }, "isolation_unavailable"],
  [
    "auto, untrusted, with micro-VMs",
    { tier: "untrusted", kinds: ["container", "microvm"] },
    "microvm",
  ],
  ["container", { isolation: "container" }, "container"],
  ["microvm", { isolation: "microvm" }, "isolation_unavailable"],
  ["caller wants more", { wanted: "microvm" }, "isolation_unavailable"],
  [
    "caller wants more and it is there",
    { wanted: "microvm", kinds: ["container", "microvm"] },
    "microvm",
  ],
  ["caller wants less", { isolation: "microvm", wanted: "container" }, "isolation_not_allowed"],
  [
    "caller wants less than the tier",
    { tier: "untrusted", wanted: "container" },
    "isolation_not_allowed",
  ],
  ["no sandboxd", { kinds: undefined }, "sandbox_failed"],
];

for (const [name, part, expected] of CASES) {
  test(`${name}: ${expected}`, () => {
    if (expected === "container" || expected === "microvm") {
      const placement = place(input(part));
      assert.equal(placement.path, expected);
      assert.ok(placement.reasons.length > 0);
    } else {
      assert.throws(
        () => place(input(part)),
        (error) => error instanceof CloisterError && error.code === expected,
      );
    }
  });
}

test("a tier is read once for many, dropped when told, and never guessed", async () => {
  let reads = 0;
  let tier: "trusted" | "untrusted" = "trusted";
  const cache = new TierCache(async () => {
    reads++;
    return tier;
  });
  assert.equal(cache.cached("ten_1"), undefined);
  await Promise.all([cache.load("ten_1"), cache.load("ten_1")]);
  assert.deepEqual([cache.cached("ten_1"), reads], ["trusted", 1]);
  tier = "untrusted";
  cache.drop("ten_1");
  assert.equal(cache.cached("ten_1"), undefined);
  assert.equal(await cache.load("ten_1"), "untrusted");
  const broken = new TierCache(async () => {
    throw new Error("connection refused");
  });
  await assert.rejects(broken.load("ten_1"), { code: "dependency_unavailable" });
});
