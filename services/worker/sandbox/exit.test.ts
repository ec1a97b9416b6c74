import assert from "node:assert/strict";
import { test } from "node:test";
import { exitError, heldAgainstLimit, type SandboxExit } from "./exit.ts";
import { functionError } from "./function-error.ts";

const V8 =
  "<--- Last few GCs --->\nFATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory";

const CASES: [string, SandboxExit, string, string][] = [
  ["the kernel's OOM killer", { reason: "oom" }, "", "function_out_of_memory"],
  [
    "V8's heap limit, by signal",
    { reason: "signal", signal: "SIGABRT" },
    V8,
    "function_out_of_memory",
  ],
  ["V8's heap limit, by number", { reason: "signal", signal: "6" }, V8, "function_out_of_memory"],
  ["V8's heap limit, by pid 1's code", { reason: "exit", code: 134 }, V8, "function_out_of_memory"],
  ["V8's heap limit, where it traps", { reason: "exit", code: 133 }, V8, "function_out_of_memory"],
  [
    "an abort of its own",
    { reason: "signal", signal: "SIGABRT" },
    "assertion failed",
    "function_exited",
  ],
  ["the text printed, then a plain exit", { reason: "exit", code: 0 }, V8, "function_exited"],
  ["a plain exit", { reason: "exit", code: 3 }, "", "function_exited"],
  ["a crash", { reason: "signal", signal: "SIGSEGV" }, "", "function_exited"],
  ["an end from outside", { reason: "killed" }, "", "sandbox_failed"],
  ["sandboxd's end", { reason: "lost" }, "", "sandbox_failed"],
  ["a failed set-up", { reason: "setup", message: "no mount" }, "", "sandbox_failed"],
  ["garbage on its socket", { reason: "protocol" }, "", "function_bad_response"],
];

for (const [name, exit, tail, expected] of CASES) {
  test(`${name} is ${expected}`, () => {
    assert.equal(exitError(exit, tail, 128).code, expected);
  });
}

const PYTHON = "Traceback (most recent call last):\nMemoryError";

test("an end after memory was refused is the limit's, if it looks so", () => {
  const code = (exit: SandboxExit, tail: string) => exitError(exit, tail, 128, true).code;
  assert.equal(code({ reason: "exit", code: 139 }, ""), "function_out_of_memory");
  assert.equal(code({ reason: "exit", code: 1 }, PYTHON), "function_out_of_memory");
  assert.equal(code({ reason: "exit", code: 1 }, "bad argument"), "function_exited");
  assert.equal(code({ reason: "exit", code: 0 }, PYTHON), "function_exited");
  assert.equal(exitError({ reason: "exit", code: 1 }, PYTHON, 128).code, "function_exited");
});

test("an error for want of memory is the limit's only if memory was refused", () => {
  const error = (raw: object, refused: boolean) =>
    heldAgainstLimit(functionError(raw, "function_error"), refused, 128);
  const python = { type: "MemoryError", message: "", stack: "in main.py" };
  assert.equal(error(python, true).code, "function_out_of_memory");
  assert.equal(error(python, true).extra.stack, "in main.py");
  assert.match(error(python, true).message, /128 MiB/);
  assert.equal(error(python, false).code, "function_error");
  const node = { type: "RangeError", message: "Array buffer allocation failed" };
  assert.equal(error(node, true).code, "function_out_of_memory");
  assert.equal(error({ type: "TypeError", message: "x" }, true).code, "function_error");
});

test("the detail names the limit, the code or the signal", () => {
  assert.match(exitError({ reason: "oom" }, "", 128).message, /128 MiB/);
  assert.match(exitError({ reason: "exit", code: 3 }, "", 128).message, /code 3/);
  assert.match(exitError({ reason: "signal", signal: "SIGSEGV" }, "", 128).message, /SIGSEGV/);
});
