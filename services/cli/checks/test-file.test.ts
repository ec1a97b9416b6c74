import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { signalProcess, startTimeOf, waitGone } from "#embedded/process-life";
import { runNodeTests } from "./node-tests.ts";
import { runTestFile } from "./test-file.ts";

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "cloister-test-file-"));
});
after(() => rmSync(folder, { recursive: true, force: true }));

const fileOf = (name: string, source: string): string => {
  const path = join(folder, `${name}.mjs`);
  writeFileSync(path, `import { test } from "node:test";\n${source}`);
  return path;
};

/** Starts a program that would hold the file's output for ever, as a server does that no test has stopped; a test is named for its pid. */
const holder = (options: object): string => `
import { spawn } from "node:child_process";
const held = spawn("sleep", ["100000"], ${JSON.stringify({ stdio: "inherit", ...options })});
held.unref();
test(String(held.pid), () => {});
`;
const HANG = `test("hangs", () => new Promise(() => setInterval(() => {}, 1000)));`;
const NEVER = new AbortController().signal;

interface Held {
  pid: number;
  startTime: string;
}

/** Runs the file and gives its end, and what `holder` has started. */
async function run(path: string, bound = NEVER, onTest: () => void = () => {}) {
  let held: Held | undefined;
  const end = await runTestFile(path, { bound }, ({ name }) => {
    const startTime = startTimeOf(Number(name));
    if (startTime) held = { pid: Number(name), startTime };
    onTest();
  });
  assert.ok(held, "it ran while the test told of it");
  return { end, held };
}

const gone = ({ pid, startTime }: Held) => waitGone(pid, startTime, 20_000);

test("a file that hangs is ended with all it has started, and says why", async () => {
  const path = fileOf("hangs", `${holder({})} ${HANG}`);
  const bound = new AbortController();
  const { end, held } = await run(path, bound.signal, () => bound.abort(new Error("too long")));
  assert.equal(end.failure, "ended with all it had started: too long");
  assert.ok(await gone(held));
});

test("what a file leaves behind keeps nobody waiting, and ends", async () => {
  const { end, held } = await run(fileOf("leaves", holder({})));
  assert.equal(end.failure, undefined);
  assert.ok(await gone(held));
});

test("what has left the group and holds the file's output keeps nobody waiting", async () => {
  const { end, held } = await run(fileOf("apart", holder({ detached: true })));
  assert.ok(signalProcess(held.pid, held.startTime, "SIGKILL"));
  assert.equal(end.failure, undefined);
});

for (const signal of ["SIGINT", "SIGKILL"] as const)
  test(`tests end with whoever runs them by ${signal}, and so does what they have started`, async () => {
    const path = fileOf("orphan", `${holder({})} ${HANG}`);
    const runner = fileOf(
      "runner",
      `const { runTestFile } = await import(${JSON.stringify(join(import.meta.dirname, "test-file.ts"))});
    await runTestFile(${JSON.stringify(path)}, { bound: new AbortController().signal }, ({ name }) => process.send(name));`,
    );
    const child = fork(runner);
    const [name] = (await once(child, "message")) as [string];
    const startTime = startTimeOf(Number(name));
    assert.ok(startTime);
    child.kill(signal);
    assert.ok(await gone({ pid: Number(name), startTime }));
  });

test("every way a test or a file can fail counts, and says where", async () => {
  const files = {
    mixed: `test("good", () => {}); test("bad", () => { throw new Error("on purpose"); });
      test("left out", { skip: "for a reason" }, () => {}); console.log("printed words");`,
    nested: `import { describe, before } from "node:test";
      describe("outer", () => { test("inner good", () => {}); test("inner bad", () => { throw new Error("within"); }); });
      describe("hooked", () => { before(() => { throw new Error("hook"); }); test("of hooked", () => {}); });`,
    broken: "import './not-there.mjs';",
    exits: `test("exits", () => process.exit(0));`,
    killed: `test("killed", () => process.kill(process.pid, "SIGKILL"));`,
    empty: "",
  };
  const told: string[] = [];
  for (const [name, source] of Object.entries(files)) {
    const { passed, failed, skipped, output } = await runNodeTests(
      [fileOf(name, source)],
      2,
      () => {},
    );
    told.push(`${name}: ${passed} ${failed} ${skipped}`);
    assert.match(output, new RegExp(`at .*${name}[.]mjs:\\d+`));
    if (name === "mixed") {
      assert.match(output, /skipped: left out \(for a reason\)/);
      assert.match(output, /FAILED: bad\n.*\n.*Error: on purpose/);
      assert.match(output, /printed by .*\n +printed words/);
    }
  }
  assert.deepEqual(told, [
    "mixed: 1 1 1",
    "nested: 1 3 0",
    "broken: 0 1 0",
    "exits: 0 1 0",
    "killed: 0 1 0",
    "empty: 0 1 0",
  ]);
});
