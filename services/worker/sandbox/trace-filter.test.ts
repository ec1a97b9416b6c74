import assert from "node:assert/strict";
import { test } from "node:test";
import { TraceFilter } from "./trace-filter.ts";

const MARK = "0123456789abcdef";
const OTHER = "fedcba9876543210";

function filter() {
  const lines: string[] = [];
  const made = new TraceFilter();
  made.begin(MARK, (line) => lines.push(line));
  return { made, lines };
}

test("before any trace everything passes", () => {
  assert.equal(new TraceFilter().pass(`\u0001${MARK} x\n`), `\u0001${MARK} x\n`);
});

test("lines of the trace are taken out, wherever they begin and however they are cut", () => {
  const whole = `before\u0001${MARK} [1] one() = 0\nbetween\n\u0001${MARK} [2] two() = 0\nafter`;
  for (let cut = 0; cut <= whole.length; cut++) {
    const { made, lines } = filter();
    const passed = made.pass(whole.slice(0, cut)) + made.pass(whole.slice(cut));
    assert.equal(passed, "beforebetween\nafter", `cut at ${cut}`);
    assert.deepEqual(lines, ["[1] one() = 0", "[2] two() = 0"], `cut at ${cut}`);
  }
});

test("what only looks like a line of a trace passes", () => {
  const { made, lines } = filter();
  for (const text of [
    `\u0001${OTHER} [1] forged() = 0\n`,
    "\u0001\u0001\n",
    `\u0001${MARK}\n`,
    `\u0001${MARK.slice(0, 8)}\n`,
    `\u0001${MARK}x [1] forged() = 0\n`,
  ])
    assert.equal(made.pass(text), text);
  const endless = `\u0001${MARK} ${"x".repeat(5000)}`;
  assert.equal(made.pass(endless), endless);
  assert.deepEqual(lines, []);
});

test("late lines of a trace that is over are nobody's", () => {
  const { made, lines } = filter();
  made.end();
  assert.equal(made.pass(`\u0001${MARK} [1] late() = 0\nx`), "x");
  const next: string[] = [];
  made.begin(OTHER, (line) => next.push(line));
  assert.equal(made.pass(`\u0001${MARK} late\n\u0001${OTHER} now\n`), "");
  assert.deepEqual([lines, next], [[], ["now"]]);
});
