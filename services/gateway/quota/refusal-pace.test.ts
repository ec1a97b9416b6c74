import assert from "node:assert/strict";
import { test } from "node:test";
import { RefusalPace } from "./refusal-pace.ts";

/** How many of so many refusals are told at once, and what tells when the last one is. */
function refused(pace: RefusalPace, tenant: string, count: number) {
  const { promise: all, resolve } = Promise.withResolvers<void>();
  const told = { now: 0, all };
  let now = true;
  let left = count;
  for (let n = 0; n < count; n++)
    pace.inTurn(tenant, () => {
      if (now) told.now++;
      if (--left === 0) resolve();
    });
  now = false;
  return told;
}

test("a few refusals are told at once, and a flood's in turn, with each tenant's own", async () => {
  const pace = new RefusalPace();
  const few = refused(pace, "few", 100);
  assert.equal(few.now, 100);
  const flood = refused(pace, "flood", 500);
  assert.ok(flood.now >= 100 && flood.now < 200, String(flood.now));
  const other = refused(pace, "other", 50);
  assert.equal(other.now, 50);
  await flood.all;
});

test("what cannot be held back is told at once, and none is forgotten", async () => {
  const pace = new RefusalPace();
  const flood = refused(pace, "flood", 5000);
  assert.ok(flood.now >= 3000, String(flood.now));
  await flood.all;
  // All places are free again.
  const again = refused(pace, "flood", 1000);
  assert.ok(again.now <= 200, String(again.now));
  await again.all;
});
