import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, describe, test } from "node:test";
import { FRAME } from "#protocol/frames";
import { type RunnerAnswer, type RunnerProcess, spawnRunner } from "#testkit/runner-process";

const ROOT = join(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "cloister-line-"));
after(() => rmSync(folder, { recursive: true }));

const node = (major: number): string[] => [
  join(ROOT, "node_modules", `node-${major}`, "bin/node"),
  "--disable-warning=ExperimentalWarning",
  join(ROOT, "runtime/runners/node/runner.mjs"),
];
const python = [
  ...[process.env.CLOISTER_TEST_PYTHON ?? "/usr/bin/python3", "-I", "-S", "-B", "-X", "utf8"],
  join(ROOT, "runtime/runners/python/runner.py"),
];

/** What a function of each kind does with `op`: notes in a file that it has begun, and then waits, ends its process or answers. */
const NODE = (note: string): string => `
import { appendFileSync } from "node:fs";
let inside = 0, most = 0;
async function serve(n, op, leftMs) {
  appendFileSync(${JSON.stringify(note)}, n + " ");
  most = Math.max(most, ++inside);
  console.log("call", n);
  if (op === "block") for (const from = Date.now(); Date.now() - from < 300; );
  if (op === "wait") await new Promise((done) => setTimeout(done, 50));
  if (op === "stop") await new Promise((done) => { globalThis.go = done; });
  if (op === "kill") process.kill(process.pid, "SIGKILL");
  if (op === "exit") process.exit(3);
  if (op === "throw") setImmediate(() => { throw new Error("outside"); });
  if (op === "throw") await new Promise(() => {});
  inside--;
  return { n, most, leftMs };
}`;
const PYTHON = (note: string): string => `
import os, signal, time
inside = most = 0
def begin(n, op):
    global inside, most
    with open(${JSON.stringify(note)}, "a") as file: file.write(n + " ")
    inside += 1
    most = max(most, inside)
    print("call", n)
    if op == "block": time.sleep(0.3)
    if op == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if op == "exit": os._exit(3)
def end(n, left):
    global inside
    inside -= 1
    return {"n": n, "most": most, "leftMs": left}`;

interface Kind {
  name: string;
  argv: string[];
  file: string;
  source(note: string): string;
  /** Who throws where nobody catches it ends its process. */
  ends: boolean;
}
const kinds: Kind[] = [
  ...[20, 22, 24, 26].map((major) => ({
    name: `node ${major}, fetch`,
    argv: node(major),
    file: "index.mjs",
    source: (note: string) => `${NODE(note)}
export default { async fetch(request, env, ctx) {
  const url = new URL(request.url);
  return Response.json(await serve(url.searchParams.get("n"), url.searchParams.get("op"), ctx.getRemainingTimeInMillis?.() ?? 0));
} };`,
    ends: true,
  })),
  {
    name: "node 24, handler",
    argv: node(24),
    file: "index.mjs",
    source: (note) => `${NODE(note)}
export const handler = ({ queryStringParameters: { n, op } }, context) => serve(n, op, context.getRemainingTimeInMillis());`,
    ends: true,
  },
  {
    name: "python, handler",
    argv: python,
    file: "main.py",
    source: (note) => `${PYTHON(note)}
def handler(event, context):
    n, op = event["queryStringParameters"]["n"], event["queryStringParameters"]["op"]
    begin(n, op)
    if op == "wait": time.sleep(0.05)
    if op == "stop": time.sleep(30)
    return end(n, context.get_remaining_time_in_millis())`,
    ends: false,
  },
  {
    name: "python, async handler",
    argv: python,
    file: "main.py",
    source: (note) => `${PYTHON(note)}
import asyncio
async def handler(event, context):
    n, op = event["queryStringParameters"]["n"], event["queryStringParameters"]["op"]
    begin(n, op)
    if op == "wait": await asyncio.sleep(0.05)
    if op == "stop": await asyncio.sleep(30)
    return end(n, context.get_remaining_time_in_millis())`,
    ends: false,
  },
  {
    name: "python, WSGI",
    argv: python,
    file: "app.py",
    source: (note) => `${PYTHON(note)}
import json
from urllib.parse import parse_qs
def app(environ, start_response):
    query = parse_qs(environ["QUERY_STRING"])
    n, op = query["n"][0], query["op"][0]
    begin(n, op)
    if op == "wait": time.sleep(0.05)
    if op == "stop": time.sleep(30)
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps(end(n, 0)).encode()]`,
    ends: false,
  },
  {
    name: "python, ASGI",
    argv: python,
    file: "app.py",
    source: (note) => `${PYTHON(note)}
import asyncio, json
from urllib.parse import parse_qs
async def app(scope, receive, send):
    if scope["type"] != "http": return
    query = parse_qs(scope["query_string"].decode())
    n, op = query["n"][0], query["op"][0]
    begin(n, op)
    if op == "wait": await asyncio.sleep(0.05)
    if op == "stop": await asyncio.sleep(30)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(end(n, 0)).encode()})`,
    ends: false,
  },
];

interface Answered {
  n: string;
  most: number;
  leftMs: number;
}
const told = ({ body }: RunnerAnswer): Answered => JSON.parse(body.toString()) as Answered;

for (const { name, argv, file, source, ends } of kinds)
  describe(`${name}: calls that wait behind others`, () => {
    const runners: RunnerProcess[] = [];
    afterEach(async () => {
      for (const runner of runners.splice(0)) await runner.close();
    });
    let made = 0;

    async function serve(): Promise<{ runner: RunnerProcess; begun: () => string[] }> {
      const root = mkdtempSync(join(folder, "f-"));
      const note = join(folder, `note-${made++}-${root.slice(-6)}`);
      writeFileSync(note, "");
      writeFileSync(join(root, file), source(note));
      const runner = spawnRunner({ argv, env: { PATH: "/usr/bin:/bin", HOME: "/tmp" } });
      runners.push(runner);
      assert.equal((await runner.init(root)).ok, true);
      assert.equal((await runner.ready).holds, true);
      return { runner, begun: () => readFileSync(note, "utf8").trim().split(" ") };
    }
    const ask = (runner: RunnerProcess, n: number, op: string, behind = n > 1) =>
      runner.invoke({ path: `/?n=${n}&op=${op}`, behind, deadlineMs: 1000 });

    test("one runs after the other, in their order, each with its own time and log", async () => {
      const { runner, begun } = await serve();
      const answers = await Promise.all(
        [1, 2, 3, 4, 5, 6].map((n) => ask(runner, n, n % 2 ? "wait" : "now")),
      );
      assert.deepEqual(begun(), ["1", "2", "3", "4", "5", "6"]);
      assert.deepEqual(
        answers.map((answer) => [told(answer).n, told(answer).most, answer.log]),
        ["1", "2", "3", "4", "5", "6"].map((n) => [n, 1, `call ${n}\n`]),
      );
      // The sixth has waited for 150 ms behind others.
      const last = answers.at(-1) as RunnerAnswer;
      assert.ok((last.trailer?.handlerMs as number) < 100, `${last.trailer?.handlerMs} ms`);
      assert.ok(told(last).leftMs === 0 || told(last).leftMs > 900, `${told(last).leftMs} ms left`);
      // And one at a time again, without and with somebody before.
      assert.equal(told(await ask(runner, 7, "now", false)).n, "7");
      assert.equal(told(await ask(runner, 8, "now", true)).n, "8");
    });

    test("who is called back or cancelled before its turn never runs", async () => {
      const { runner, begun } = await serve();
      const answers = [
        ask(runner, 1, "wait"),
        ask(runner, 2, "now"),
        ask(runner, 3, "now"),
        ask(runner, 4, "now"),
      ];
      // The first has begun, and one that is over or never was is nobody's.
      for (const stream of [1, 3, 3]) runner.recall(stream);
      runner.link.connection.send(FRAME.CANCEL, 2);
      const [first, cancelled, recalled, last] = (await Promise.all(answers)) as [
        RunnerAnswer,
        RunnerAnswer,
        RunnerAnswer,
        RunnerAnswer,
      ];
      assert.equal(told(first).n, "1");
      assert.equal(cancelled.error?.code, "function_cancelled");
      assert.equal(recalled.error?.code, "function_recalled");
      assert.equal(told(last).n, "4");
      assert.deepEqual(begun(), ["1", "4"]);
    });

    test("who is called back or cancelled while the function computes never runs", async () => {
      const { runner, begun } = await serve();
      const answers = [
        ask(runner, 1, "block"),
        ask(runner, 2, "now"),
        ask(runner, 3, "now"),
        ask(runner, 4, "now"),
      ];
      while (begun()[0] !== "1") await new Promise((resolve) => setTimeout(resolve, 5));
      runner.recall(2);
      runner.link.connection.send(FRAME.CANCEL, 3);
      const [first, recalled, cancelled, last] = await Promise.all(answers);
      assert.equal(first && told(first).n, "1");
      assert.equal(recalled?.error?.code, "function_recalled");
      assert.equal(cancelled?.error?.code, "function_cancelled");
      assert.equal(last && told(last).n, "4");
      assert.deepEqual(begun(), ["1", "4"]);
    });

    test("a call that is cancelled as soon as it comes ends, and the next is served", async () => {
      const { runner } = await serve();
      const answer = ask(runner, 1, "wait");
      runner.link.connection.send(FRAME.CANCEL, 1);
      const { error, body } = await answer;
      assert.ok(error?.code === "function_cancelled" || body.length > 0);
      assert.equal(told(await ask(runner, 2, "now", false)).n, "2");
    });

    test("of a process that is killed, each answer before has come, and those behind never ran", async () => {
      for (const op of ["kill", "exit"]) {
        const { runner, begun } = await serve();
        const answers = await Promise.allSettled([
          ask(runner, 1, "now"),
          ask(runner, 2, "now"),
          ask(runner, 3, op),
          ask(runner, 4, "now"),
        ]);
        assert.deepEqual(
          answers.map(({ status }) => status),
          ["fulfilled", "fulfilled", "rejected", "rejected"],
          op,
        );
        assert.deepEqual(begun(), ["1", "2", "3"], op);
      }
    });

    if (ends)
      test("a process that a fault ends gives those back that wait", async () => {
        const { runner, begun } = await serve();
        const [first, second] = await Promise.all([ask(runner, 1, "throw"), ask(runner, 2, "now")]);
        assert.deepEqual([first.error?.code, first.error?.exiting], ["function_error", true]);
        assert.equal(second.error?.code, "function_recalled");
        assert.deepEqual(begun(), ["1"]);
      });
  });
