import assert from "node:assert/strict";
import { test } from "node:test";
import { redactKeys } from "./log.ts";

test("a key in a log line loses its secret, and nothing else is touched", () => {
  const id = "0123456789abcdefghijklmnop";
  const secret = "A".repeat(43);
  assert.equal(
    redactKeys(`{"url":"/x?key=cl_${id}_${secret}","n":1}`),
    `{"url":"/x?key=cl_${id}_[secret]","n":1}`,
  );
  assert.equal(redactKeys("cl_short_one"), "cl_short_one");
});
