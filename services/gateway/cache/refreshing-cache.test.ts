import assert from "node:assert/strict";
import { test } from "node:test";
import { CloisterError } from "#errors/catalogue";
import { RefreshingCache, type RefreshingCacheOptions } from "./refreshing-cache.ts";

function cacheOf(options: Partial<RefreshingCacheOptions<string>> = {}) {
  const asked: string[] = [];
  const problems: Error[] = [];
  const source = { answer: async (key: string): Promise<string | undefined> => `${key}!` };
  const cache = new RefreshingCache<string>({
    load(key) {
      asked.push(key);
      return source.answer(key);
    },
    freshMs: 60_000,
    absentMs: 60_000,
    staleMs: 60_000,
    maxEntries: 3,
    onProblem: (error) => problems.push(error),
    ...options,
  });
  return { cache, asked, problems, source };
}

test("a value is asked for once, by all who want it, and then there at once", async () => {
  const { cache, asked } = cacheOf();
  assert.deepEqual(await Promise.all([cache.get("a"), cache.get("a")]), ["a!", "a!"]);
  assert.equal(cache.get("a"), "a!");
  assert.deepEqual(asked, ["a"]);
});

test("while the source is away an older value serves; without one it is said", async () => {
  const { cache, problems, source } = cacheOf();
  await cache.get("a");
  cache.expire();
  source.answer = async () => {
    throw new Error("away");
  };
  assert.equal(await cache.get("a"), "a!");
  // For a moment nobody asks again.
  assert.equal(cache.get("a"), "a!");
  assert.equal(problems.length, 1);
  await assert.rejects(
    async () => cache.get("b"),
    (error: CloisterError) => error.code === "dependency_unavailable",
  );
});

test("a value that is too old serves nobody", async () => {
  const { cache, source } = cacheOf({ staleMs: 0 });
  await cache.get("a");
  cache.expire();
  source.answer = async () => {
    throw new Error("away");
  };
  await assert.rejects(async () => cache.get("a"), CloisterError);
});

test("a drop forgets what matches and what was absent, and what is being read meanwhile", async () => {
  const { cache, asked, source } = cacheOf();
  await cache.get("a");
  await cache.get("b");
  source.answer = async () => undefined;
  await cache.get("c");
  source.answer = async (key) => `${key}?`;
  const reading = cache.get("d");
  cache.drop((value) => value === "a!");
  assert.equal(await reading, "d?");
  assert.equal(cache.get("b"), "b!");
  assert.equal(await cache.get("a"), "a?");
  assert.equal(await cache.get("c"), "c?");
  assert.equal(await cache.get("d"), "d?");
  assert.deepEqual(asked, ["a", "b", "c", "d", "a", "c", "d"]);
});

test("the number of entries has a bound", async () => {
  const { cache } = cacheOf();
  for (const key of ["a", "b", "c", "d", "e"]) await cache.get(key);
  assert.equal(cache.size, 3);
});
