import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Conversation, FRAME } from "../conversation.ts";

const PYTHON = process.env.CLOISTER_TEST_PYTHON ?? "/usr/bin/python3";
const RUNNER = join(import.meta.dirname, "runner.py");
const SEED = Buffer.alloc(32, 7).toString("base64");

const folder = mkdtempSync(join(tmpdir(), "cloister-lifecycle-"));
const runners: Conversation[] = [];
let functions = 0;
after(async () => {
  for (const runner of runners) await runner.close();
  rmSync(folder, { recursive: true });
});

/** A runner that was told to make itself ready for a snapshot, and its INIT_DONE. */
async function settled(files: string | Record<string, string>, warmTurns = 8) {
  const root = mkdtempSync(join(folder, `f${functions++}-`));
  for (const [name, text] of Object.entries(
    typeof files === "string" ? { "main.py": files } : files,
  ))
    writeFileSync(join(root, name), text);
  const argv = [PYTHON, "-I", "-S", "-B", "-X", "utf8", RUNNER];
  const runner = new Conversation(argv, { PATH: "/usr/bin:/bin", LANG: "C.UTF-8" });
  runners.push(runner);
  return { runner, done: await runner.init(root, { snapshot: { warmTurns } }) };
}

const restore = (runner: Conversation) =>
  runner.send(FRAME.restored, 0, { seed: SEED, nowMs: Date.now(), pid: 4711 });
const ready = async (runner: Conversation) =>
  JSON.parse((await runner.next([FRAME.ready], 0)).payload.toString());

for (const [kind, prefix] of [
  ["sync", ""],
  ["async", "async "],
] as const) {
  test(`${kind}: hooks run in their order, and the handler by itself never`, async () => {
    const { runner, done } = await settled(`
seen = ["loaded"]
class lifecycle:
    ${prefix}def warm_up():
        seen.append("warm_up")
    ${prefix}def before_snapshot():
        seen.append("before_snapshot")
    ${prefix}def after_restore():
        seen.append("after_restore")
${prefix}def handler(event, context):
    seen.append("call")
    return seen
`);
    assert.equal(done.ok, true, JSON.stringify(done));
    restore(runner);
    // Sent before READY has come: no time is lost, and the hook still comes first.
    const { body } = await runner.invoke();
    const seen = ["loaded", "warm_up", "before_snapshot", "after_restore", "call"];
    assert.deepEqual(JSON.parse(body.toString()), seen);
    assert.equal(typeof (await ready(runner)).renewMs, "number");
  });

  test(`${kind}: turns of the runner's own code before READY: no handler, and numbers as the hook left them`, async () => {
    for (const hook of ["", "random.seed(1)"]) {
      const { runner, done } = await settled(`
import random
calls = 0
class lifecycle:
    ${prefix}def after_restore():
        ${hook || "pass"}
${prefix}def handler(event, context):
    global calls
    calls += 1
    return [calls, random.random()]
`);
      assert.equal(done.ok, true, JSON.stringify(done));
      const restored = { seed: SEED, nowMs: Date.now(), pid: 4711, warmTurns: 3 };
      runner.send(FRAME.restored, 0, restored);
      const { body } = await runner.invoke();
      const [calls, drawn] = JSON.parse(body.toString());
      assert.equal(calls, 1);
      // The first number of Python's generator after that seed.
      assert.equal(drawn === 0.13436424411240122, hook !== "");
      assert.equal(typeof (await ready(runner)).renewMs, "number");
    }
  });

  test(`${kind}: the decorators of Lambda's library, in Lambda's order`, async () => {
    const { runner, done } = await settled(`
from snapshot_restore_py import register_after_restore, register_before_snapshot
seen = []
@register_before_snapshot
${prefix}def first():
    seen.append("before 1")
register_before_snapshot(lambda text: seen.append(text), "before 2")
@register_after_restore
${prefix}def third():
    seen.append("after 1")
register_after_restore(seen.append, "after 2")
${prefix}def handler(event, context):
    return seen
`);
    assert.equal(done.ok, true, JSON.stringify(done));
    restore(runner);
    const { body } = await runner.invoke();
    assert.deepEqual(JSON.parse(body.toString()), ["before 2", "before 1", "after 1", "after 2"]);
  });

  test(`${kind}: a failing after_restore fails the calls of that start, and no call is served`, async () => {
    const { runner, done } = await settled(`
class lifecycle:
    ${prefix}def after_restore():
        raise ValueError("no key")
${prefix}def handler(event, context):
    return "served"
`);
    assert.equal(done.ok, true, JSON.stringify(done));
    restore(runner);
    for (let call = 0; call < 2; call++) {
      const { error } = await runner.invoke();
      assert.equal(error?.code, "function_init_error");
      assert.equal(error?.message, "lifecycle.after_restore: no key");
    }
    const again = JSON.parse((await runner.next([FRAME.initDone], 0)).payload.toString());
    assert.equal(again.ok, false);
    assert.equal(again.error.code, "function_init_error");
  });
}

for (const [hook, source] of [
  ["before_snapshot", "def before_snapshot(self): raise ValueError('no')"],
  ["warm_up", "async def warm_up(self): raise ValueError('no')"],
] as const)
  test(`a failing ${hook} fails INIT by name`, async () => {
    const { done } = await settled(`
class Lifecycle:
    ${source}
lifecycle = Lifecycle()
def handler(event, context):
    return 1
`);
    assert.equal(done.ok, false);
    assert.equal(done.error?.type, "ValueError");
    assert.equal(done.error?.message, `lifecycle.${hook}: no`);
    assert.equal(done.error?.code, "function_init_error");
  });

test("a hook that cannot be called is named, in a dict too", async () => {
  const { done } = await settled(
    "lifecycle = {'after_restore': 3}\ndef handler(event, context):\n    return 1\n",
  );
  assert.match(done.error?.message ?? "", /lifecycle\.after_restore is a int/);
});

test("a bundle's own library of that name goes before the one that is offered", async () => {
  const { runner, done } = await settled({
    "main.py":
      "import snapshot_restore_py\ndef handler(event, context):\n    return snapshot_restore_py.own\n",
    "snapshot_restore_py.py":
      "own = 'mine'\ndef get_before_snapshot(): return []\ndef get_after_restore(): return []\n",
  });
  assert.equal(done.ok, true, JSON.stringify(done));
  restore(runner);
  assert.equal((await runner.invoke()).body.toString(), '"mine"');
});

for (const [kind, source] of [
  [
    "ASGI",
    `async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(calls()).encode()})
`,
  ],
  [
    "WSGI",
    `def app(environ, start_response):
    start_response("200 OK", [])
    return [str(calls()).encode()]
`,
  ],
] as const)
  test(`an ${kind} app serves after a restore, and no one called it before`, async () => {
    const { runner, done } = await settled(`
called = 0
def calls():
    global called
    called += 1
    return called
${source}`);
    assert.equal(done.ok, true, JSON.stringify(done));
    restore(runner);
    for (const expected of ["1", "2"]) {
      const { body } = await runner.invoke({ kind: "http", method: "GET" });
      assert.equal(body.toString(), expected);
    }
  });

test("what was drawn before is not drawn again, whatever the seed", async () => {
  const { runner } = await settled(`
import random
state = random.getstate()
def handler(event, context):
    return random.getstate() == state
`);
  restore(runner);
  assert.equal((await runner.invoke()).body.toString(), "false");
});
