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

test("a policy that will soon be old is read once behind those who ask, and what fails then changes nothing", async () => {
  let reads = 0;
  let read = async (): Promise<{ tier: "trusted" | "standard" }> => ({ tier: "trusted" });
  const cache = new PolicyCache(() => {
    reads++;
    return read();
  }, 5000);
  await cache.load("ten_1");
  read = async () => ({ tier: "standard" });
  for (let ask = 0; ask < 3; ask++) assert.deepEqual(cache.cached("ten_1"), { tier: "trusted" });
  await new Promise(setImmediate);
  read = async () => {
    throw new Error("connection refused");
  };
  assert.deepEqual([cache.cached("ten_1"), reads], [{ tier: "standard" }, 3]);
  await new Promise(setImmediate);
  assert.deepEqual([cache.cached("ten_1"), reads], [{ tier: "standard" }, 3]);
});
