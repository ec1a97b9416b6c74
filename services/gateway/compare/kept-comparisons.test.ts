import assert from "node:assert/strict";
import { mock, test } from "node:test";
import type { Comparison } from "#contracts/comparison";
import { CloisterError } from "#errors/catalogue";
import type { ComparisonOptions } from "./comparison.ts";
import type { BegunComparison } from "./comparisons.ts";
import { type KeptComparison, KeptComparisons } from "./kept-comparisons.ts";

const never = new AbortController().signal;
const known = (error: unknown) =>
  error instanceof CloisterError ? error : new CloisterError("internal");
const BOUNDS = { all: 4, ofTenant: 2, bytes: 1000, ageMs: 1000 };

/** A comparison that ends when it is told to, or when its signal says so. */
function begun(tenantId: string, name = "f", letters = 1) {
  const settled = Promise.withResolvers<Comparison>();
  const made = {
    target: { tenantId, name, version: 1 },
    call: "GET /",
    run({ signal, onProgress }: Omit<ComparisonOptions, "run">) {
      onProgress({ done: 1, of: 2, path: "container", start: "cold", ms: 5 });
      onProgress({ done: 2, of: 2, path: "container", start: "cold", failure: "no" });
      signal.addEventListener("abort", () => settled.resolve({ stopped: "x" } as Comparison));
      return settled.promise;
    },
  } as unknown as BegunComparison;
  return {
    made,
    end: () => settled.resolve({ call: "x".repeat(letters) } as Comparison),
    fail: (error: unknown) => settled.reject(error),
  };
}

async function ended(all: KeptComparisons, tenant: string, letters = 1): Promise<KeptComparison> {
  const { made, end } = begun(tenant, "f", letters);
  const one = all.start(made, never, known);
  end();
  await one.ended;
  return one;
}

test("progress is summed by start, and watchers hear of each step and of the end", async () => {
  const all = new KeptComparisons(BOUNDS);
  const { made, end } = begun("a");
  const one = all.start(made, never, known);
  assert.deepEqual(
    [...one.cells.values()],
    [{ path: "container", start: "cold", runs: 2, failed: 1, lastMs: 5, failure: "no" }],
  );
  let heard = 0;
  const forget = one.watch(() => heard++);
  one.advance({ done: 3, of: 4, path: "microvm", start: "cold", ms: 1 });
  assert.deepEqual([heard, one.done, one.cells.size], [1, 3, 2]);
  assert.equal(all.running("a"), one);
  end();
  await one.ended;
  assert.equal(heard, 2);
  forget();
  assert.equal(one.watchers, 0);
  assert.equal(all.running("a"), undefined);
});

test("a tenant finds its own only", async () => {
  const all = new KeptComparisons(BOUNDS);
  const one = await ended(all, "a");
  assert.equal(all.find("a", one.id), one);
  assert.equal(all.find("b", one.id), undefined);
  assert.deepEqual([all.of("a", "f"), all.of("a", "g"), all.of("b", "f")], [[one], [], []]);
});

test("stopping and draining end it; what it rejects with is kept as its problem", async () => {
  const all = new KeptComparisons(BOUNDS);
  const one = all.start(begun("a").made, never, known);
  one.stop();
  await one.ended;
  assert.ok(one.outcome && "result" in one.outcome);
  const drain = new AbortController();
  const two = all.start(begun("b").made, drain.signal, known);
  drain.abort();
  await two.ended;
  assert.ok(two.outcome);
  const { made, fail } = begun("c");
  const three = all.start(made, never, known);
  fail(new CloisterError("quota_exceeded"));
  await three.ended;
  assert.ok(three.outcome && "problem" in three.outcome);
  assert.equal(three.outcome.problem.code, "quota_exceeded");
});

test("number, number of a tenant, bytes and age are bounded, the oldest go first, and what runs stays", async () => {
  mock.timers.enable({ apis: ["Date"], now: Date.now() });
  try {
    const all = new KeptComparisons(BOUNDS);
    const running = all.start(begun("r").made, never, known);
    const first = await ended(all, "a");
    const [second, third] = [await ended(all, "a"), await ended(all, "a")];
    assert.deepEqual(all.of("a", "f"), [third, second]);
    assert.equal(all.find("a", first.id), undefined);
    await ended(all, "b");
    await ended(all, "c");
    await ended(all, "d");
    // Of four, the newest three of other tenants and one of a's.
    assert.deepEqual(all.of("a", "f"), [third]);
    const large = await ended(all, "e", 900);
    assert.ok(large.bytes > 900);
    await ended(all, "a", 900);
    assert.equal(all.find("e", large.id), undefined);
    assert.equal(all.of("a", "f").length, 1);
    mock.timers.tick(BOUNDS.ageMs + 1);
    assert.deepEqual([all.of("a", "f"), all.of("d", "f")], [[], []]);
    assert.equal(all.find("r", running.id), running);
    running.stop();
    await running.ended;
    assert.equal(all.find("r", running.id), undefined);
  } finally {
    mock.timers.reset();
  }
});
