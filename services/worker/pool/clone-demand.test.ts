import assert from "node:assert/strict";
import { test } from "node:test";
import { CloneDemand } from "./clone-demand.ts";

/** Times of calls that come independently of each other, `rate` in a second, from a start; the same for the same seed. */
function* arrivals(rate: number, fromMs: number, untilMs: number, seed: number): Generator<number> {
  let state = seed;
  const next = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state + 1) / 2 ** 32;
  };
  for (let at = fromMs; ; ) {
    at += (-Math.log(next()) * 1000) / rate;
    if (at >= untilMs) return;
    yield at;
  }
}

/** Clones made one at a time for such calls; how many of those in the second half found none waiting. */
function simulate(rate: number, makeMs: number, most: number, seed: number) {
  const demand = new CloneDemand();
  let [waiting, doneAtMs, kept, late, found] = [0, Number.POSITIVE_INFINITY, 0, 0, 0];
  const work = (nowMs: number): void => {
    for (;;) {
      if (doneAtMs <= nowMs) {
        waiting++;
        demand.made(makeMs);
        doneAtMs = Number.POSITIVE_INFINITY;
      }
      if (doneAtMs !== Number.POSITIVE_INFINITY) return;
      if (waiting >= demand.wanted(nowMs, most)) return;
      doneAtMs = nowMs + makeMs;
    }
  };
  for (const at of arrivals(rate, 0, 120_000, seed)) {
    // What was begun after an earlier call goes on between the calls.
    for (let step = 0; step <= most && doneAtMs <= at; step++) work(doneAtMs);
    work(at);
    const second = at > 60_000;
    if (waiting > 0) {
      waiting--;
      demand.took(at);
      if (second) found++;
    } else {
      demand.missed(at);
      if (second) late++;
    }
    kept = Math.max(kept, demand.wanted(at, most));
    work(at);
  }
  return { kept, share: found / (found + late), at: 120_000, demand };
}

test("calls that come independently nearly all find one, and never more wait than may", () => {
  for (const [rate, most] of [
    [1, 2],
    [10, 2],
    [30, 4],
    [60, 8],
  ] as const) {
    for (const seed of [1, 2, 3]) {
      const { kept, share } = simulate(rate, 10, most, seed);
      assert.ok(kept <= most, `${kept} of ${most} at ${rate}/s`);
      assert.ok(share > 0.85, `${share} found one at ${rate}/s with ${most}`);
    }
  }
});

test("a slow function keeps more than a fast one at the same rate, and a rare one a single one", () => {
  const wanted = (rate: number, makeMs: number): number => {
    const { demand, at } = simulate(rate, makeMs, 100, 4);
    // Misses ask for some too, until they are forgotten; this is what the rate asks for.
    const fresh = new CloneDemand();
    for (let n = 0; n < 40; n++) fresh.made(makeMs);
    for (let t = 0; t <= 60_000; t += 1000 / rate) fresh.took(t);
    assert.ok(demand.wanted(at, 100) >= 1);
    return fresh.wanted(60_000, 100);
  };
  assert.deepEqual([wanted(0.2, 10), wanted(20, 10), wanted(20, 200)], [1, 1, 7]);
});

test("a burst that found none asks for as many, for a while", () => {
  const demand = new CloneDemand();
  for (let n = 0; n < 3; n++) demand.missed(1000);
  assert.deepEqual(
    [1000, 10_000, 30_000, 61_001].map((at) => demand.wanted(at, 8)),
    [3, 2, 1, 0],
  );
  assert.equal(demand.wanted(1000, 0), 0);
});

test("nobody keeps one for a function that is not called, or does not come back", () => {
  const demand = new CloneDemand();
  assert.equal(demand.wanted(0, 2), 0);
  for (let at = 0; at < 100_000; at += 10) demand.took(at);
  assert.ok(demand.wanted(100_000, 2) > 0);
  assert.equal(demand.forgotten(159_900), false);
  assert.equal(demand.wanted(160_000, 2), 0);
  assert.equal(demand.forgotten(160_000), true);
  demand.took(170_000);
  demand.failed(170_000);
  assert.deepEqual([demand.wanted(174_999, 2), demand.wanted(175_000, 2)], [0, 1]);
});
