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
    aheadMs: 0,
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

test("a value that will soon be old is asked for once, behind those who want it", async () => {
  const { cache, asked, problems, source } = cacheOf({ aheadMs: 60_000 });
  await cache.get("a");
  const { promise, resolve } = Promise.withResolvers<string>();
  source.answer = () => promise;
  for (let want = 0; want < 3; want++) assert.equal(cache.get("a"), "a!");
  assert.deepEqual(asked, ["a", "a"]);
  resolve("a?");
  await promise.then(() => new Promise(setImmediate));
  source.answer = async () => {
    throw new Error("away");
  };
  assert.equal(cache.get("a"), "a?");
  await new Promise(setImmediate);
  // Nobody has missed anything yet, and the source is not asked again and again.
  assert.equal(cache.get("a"), "a?");
  assert.deepEqual([asked.length, problems], [3, []]);
});

test("what is read ahead is not kept when it was changed meanwhile", async () => {
  const { cache, asked, source } = cacheOf({ aheadMs: 60_000 });
  await cache.get("a");
  const { promise, resolve } = Promise.withResolvers<string>();
  source.answer = () => promise;
  assert.equal(cache.get("a"), "a!");
  cache.drop((value) => value === "a!");
  source.answer = async () => "changed";
  const wanted = cache.get("a");
  resolve("from before the change");
  assert.equal(await wanted, "changed");
  await promise.then(() => new Promise(setImmediate));
  assert.equal(cache.get("a"), "changed");
  assert.equal(asked[2], "a");
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
