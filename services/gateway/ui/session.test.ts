import assert from "node:assert/strict";
import { test } from "node:test";
import { FAILURES_MS, FailedSignIns, MOST_FAILURES } from "./failed-sign-ins.ts";
import { SESSION_MS, SessionSeal } from "./session.ts";

const KEY = `cl_${"a".repeat(26)}_${"B".repeat(43)}`;

test("a sealed key opens for who has the secret, for twelve hours, and shows nothing of it", () => {
  const seal = new SessionSeal("a secret of sixteen characters");
  const cookie = seal.seal(KEY, 1000);
  assert.match(cookie, /^[\w-]{60,400}$/);
  assert.ok(!Buffer.from(cookie, "base64url").toString("latin1").includes("BBBB"));
  assert.deepEqual(seal.open(cookie, 1000 + SESSION_MS - 1), { key: KEY });
  assert.equal(seal.open(cookie, 1000 + SESSION_MS), "expired");
  assert.notEqual(seal.seal(KEY, 1000), cookie);
  assert.deepEqual(new SessionSeal("a secret of sixteen characters").open(cookie, 1000), {
    key: KEY,
  });
  assert.equal(new SessionSeal("another secret of more letters").open(cookie, 1000), "invalid");
});

test("a cookie that was changed, cut or made up does not open", () => {
  const seal = new SessionSeal("a secret of sixteen characters");
  const bytes = Buffer.from(seal.seal(KEY, 0), "base64url");
  for (let at = 0; at < bytes.length; at++) {
    const changed = Buffer.from(bytes);
    changed[at] = (changed[at] as number) ^ 1;
    assert.equal(seal.open(changed.toString("base64url"), 0), "invalid", `byte ${at}`);
    assert.equal(seal.open(bytes.subarray(0, at).toString("base64url"), 0), "invalid");
  }
  for (const text of ["", "x", KEY, "é", "a".repeat(100_000)])
    assert.equal(seal.open(text, 0), "invalid");
});

test("wrong keys are counted by address for a minute, in bounded memory", () => {
  const failures = new FailedSignIns();
  for (let n = 0; n < MOST_FAILURES; n++) {
    assert.equal(failures.waitMs("192.0.2.1", 5), 0);
    failures.failed("192.0.2.1", 5);
  }
  assert.equal(failures.waitMs("192.0.2.1", 5), FAILURES_MS);
  assert.equal(failures.waitMs("192.0.2.2", 5), 0);
  assert.equal(failures.waitMs("192.0.2.1", 5 + FAILURES_MS), 0);
  failures.failed("192.0.2.1", 5 + FAILURES_MS);
  assert.equal(failures.waitMs("192.0.2.1", 5 + FAILURES_MS), 0);
  for (let n = 0; n < 30_000; n++) failures.failed(`address ${n}`, 10);
  assert.ok(failures.size <= 10_000, String(failures.size));
});
