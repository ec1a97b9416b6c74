import assert from "node:assert/strict";
import { test } from "node:test";
import { parseDuration, parseExpiry } from "./moments.ts";

test("durations are a number and a unit", () => {
  assert.deepEqual(
    ["0", "90s", "15m", "12h", "30d"].map(parseDuration),
    [0, 90_000, 900_000, 43_200_000, 2_592_000_000],
  );
  for (const wrong of ["", "-1h", "1.5h", "5", "1w", "1h30m", "9999999d", "h"])
    assert.throws(() => parseDuration(wrong), /Write it as/, wrong);
});

test("an expiry is a day, a moment with its zone, or a time from now", () => {
  assert.equal(parseExpiry("2027-01-31"), "2027-01-31T00:00:00.000Z");
  assert.equal(parseExpiry("2027-01-31T12:00:00+02:00"), "2027-01-31T10:00:00.000Z");
  const before = Date.now() + 3_600_000;
  const inAnHour = new Date(parseExpiry("1h")).getTime();
  assert.ok(inAnHour >= before && inAnHour <= Date.now() + 3_600_000);
  for (const wrong of ["", "tomorrow", "2027-02-30", "2027-13-01", "2027-01-31T12:00:00", "1"])
    assert.throws(() => parseExpiry(wrong), /Write it as/, wrong);
});
