import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { CloisterError, ERRORS, type ErrorCode, errorCode } from "./catalogue.ts";

const ENTRIES = Object.entries(ERRORS) as [ErrorCode, (typeof ERRORS)[ErrorCode]][];

interface Row {
  code: string;
  status: number;
  title: string;
  remedy: string;
  ran: string;
}

/** The table below "## Errors" of SPECIFICATION.md. */
function documented(): Row[] {
  const text = readFileSync(join(import.meta.dirname, "../../../SPECIFICATION.md"), "utf8");
  const section = /^## Errors$(.*?)^## /ms.exec(text)?.[1] ?? "";
  return [...section.matchAll(/^\| `(\w+)` \| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$/gm)].map(
    ([, code = "", status, title = "", remedy = "", ran = ""]) => ({
      code,
      status: Number(status),
      title,
      // Markdown would take <name> for HTML.
      remedy: remedy.replaceAll("\\<", "<"),
      ran,
    }),
  );
}

test("SPECIFICATION.md and the catalogue say the same, in the same order", () => {
  const said = documented().map(({ code, status, title, remedy }) => ({
    ...{ code, status, title, remedy },
  }));
  assert.deepEqual(
    said,
    ENTRIES.map(([code, { status, title, remedy }]) => ({ code, status, title, remedy })),
  );
});

test("SPECIFICATION.md tells of each error whether the function may have run", () => {
  for (const { code, ran } of documented()) assert.match(ran, /^(no|perhaps|yes)$/, code);
});

test("every error has a code for programs, and a title and a remedy for people", () => {
  for (const [code, { status, title, remedy }] of ENTRIES) {
    assert.match(code, /^[a-z]+(_[a-z]+)*$/);
    assert.ok(Number.isInteger(status) && status >= 400 && status <= 599, code);
    assert.match(title, /^[A-Z].*[^.]$/, code);
    assert.match(remedy, /^[A-Z].*\.$/, code);
  }
});

test("a code from a wire is taken only when it is in the catalogue", () => {
  assert.equal(errorCode("function_timeout"), "function_timeout");
  for (const value of ["no_such_code", "toString", "__proto__", "", 404, null, undefined, {}])
    assert.equal(errorCode(value), "internal");
});

test("an error carries its entry, and its title where no detail is given", () => {
  const plain = new CloisterError("queue_timeout");
  assert.equal(plain.message, ERRORS.queue_timeout.title);
  assert.equal(plain.status, 503);
  assert.equal(plain.remedy, ERRORS.queue_timeout.remedy);
  assert.equal(new CloisterError("queue_timeout", "It is late").message, "It is late");
});

test("only what may be the platform's own fault says where in the code it was made", () => {
  const { stackTraceLimit } = Error;
  assert.doesNotMatch(new CloisterError("quota_exceeded").stack ?? "", /\n *at /);
  assert.match(new CloisterError("internal").stack ?? "", /\n *at .*catalogue\.test\.ts/);
  assert.equal(Error.stackTraceLimit, stackTraceLimit);
});
