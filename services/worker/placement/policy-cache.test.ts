import assert from "node:assert/strict";
import { test } from "node:test";
import { PolicyCache } from "./policy-cache.ts";

test("a policy is read once for many, dropped when told, and never guessed", async () => {
  let reads = 0;
  let tier: "trusted" | "untrusted" = "trusted";
  const cache = new PolicyCache(async () => {
    reads++;
    return { tier };
  });
  assert.equal(cache.cached("ten_1"), undefined);
  await Promise.all([cache.load("ten_1"), cache.load("ten_1")]);
  assert.deepEqual([cache.cached("ten_1"), reads], [{ tier: "trusted" }, 1]);
  tier = "untrusted";
  cache.drop("ten_1");
  assert.equal(cache.cached("ten_1"), undefined);
  assert.deepEqual(await cache.load("ten_1"), { tier: "untrusted" });
  const { promise, resolve } = Promise.withResolvers<{ tier: "trusted" }>();
  const slow = new PolicyCache(() => promise);
  const begun = slow.load("ten_1");
  slow.drop("ten_1");
  resolve({ tier: "trusted" });
  await begun;
  assert.equal(slow.cached("ten_1"), undefined, "what was read before the change is not kept");
  const broken = new PolicyCache(async () => {
    throw new Error("connection refused");
  });
  await assert.rejects(broken.load("ten_1"), { code: "dependency_unavailable" });
});
