import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Instance, startInstance } from "#testkit/instance";
import { call, deploy, logs, problem, recordOf } from "./client.ts";

interface Snapshot {
  state: string;
  reason?: string;
  bytes?: number;
  ms?: number;
}

/** Nothing tells when a snapshot is made; a busy machine takes its time. */
const TRIES = 600;
const PAUSE_MS = 100;

/** One that was put back to its snapshot after a call is as good as a new one. */
const OF_A_SNAPSHOT = /^(restored|reset)$/;
const startOf = (response: Response): string => response.headers.get("cloister-start") ?? "";

/** Function snapshots: micro-VMs that come back with their function loaded. */
describe("function snapshots", { timeout: 300_000 }, () => {
  let instance: Instance;
  before(async () => {
    instance = await startInstance();
  });
  after(() => instance?.stop());

  async function settled(name: string): Promise<Snapshot> {
    for (let tries = 0; tries < TRIES; tries++) {
      const response = await fetch(`${instance.url}/v1/functions/${name}`, {
        headers: { authorization: `Bearer ${instance.key}` },
      });
      assert.equal(response.status, 200, await response.clone().text());
      const { snapshot } = (await response.json()) as { snapshot: Snapshot };
      if (snapshot.state !== "making") return snapshot;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    throw new Error(`${name} is still being made`);
  }

  /** Lines are written in batches; waits for one of Cloister's own with this text. */
  async function logged(name: string, wanted: string): Promise<void> {
    for (let tries = 0; tries < TRIES; tries++) {
      const lines = await logs(instance, name);
      if (lines.some(({ stream, text }) => stream === "system" && text.includes(wanted))) return;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    throw new Error(`nothing in the log of ${name} says ${wanted}`);
  }

  /** Publishes a function whose every call gets a sandbox of its own, and waits for its snapshot. */
  async function published(name: string, source: string, more: Record<string, unknown> = {}) {
    const file = more.runtime === "python3" ? "main.py" : "index.mjs";
    const files = { [file]: source };
    await deploy(instance, { name, isolation: "microvm", reuse: "fresh", files, ...more });
    return settled(name);
  }

  async function ready(name: string, source: string, more: Record<string, unknown> = {}) {
    const snapshot = await published(name, source, more);
    assert.equal(snapshot.state, "ready", `${JSON.stringify(snapshot)}\n${instance.output()}`);
    assert.ok(Number(snapshot.bytes) > 0 && Number(snapshot.ms) > 0, JSON.stringify(snapshot));
  }

  /** Calls it until it comes back from a snapshot. */
  async function startsAgain(name: string): Promise<void> {
    let start: string | null = "";
    for (let tries = 0; tries < TRIES && start !== "restored"; tries++) {
      const response = await call(instance, name);
      await response.arrayBuffer();
      if (response.status === 200) start = response.headers.get("cloister-start");
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  /** The answer of a call that must have come of a snapshot. */
  async function restored(name: string): Promise<unknown> {
    const response = await call(instance, name);
    const text = await response.text();
    assert.equal(response.status, 200, text);
    assert.match(startOf(response), OF_A_SNAPSHOT, text);
    const timing = response.headers.get("server-timing") ?? "";
    // It was brought back, for this call or before it, and nothing was loaded.
    assert.match(timing, /restore;dur=[\d.]+, renew;dur=[\d.]+|^(?!.*create;).*acquire;dur=/);
    assert.doesNotMatch(timing, /init;dur/);
    return JSON.parse(text);
  }

  test("Node: loaded once, hooks in their order, the handler never called before; each clone is somebody else", async () => {
    await ready(
      "drawn-by-node",
      `import { randomBytes, randomInt, randomUUID } from "node:crypto";
       const loaded = randomUUID();
       randomInt(10);
       const seen = [];
       const own = {};
       let calls = 0;
       export const lifecycle = {
         warmUp() { seen.push("warmUp"); },
         beforeSnapshot() { seen.push("beforeSnapshot"); },
         async afterRestore() { seen.push("afterRestore"); own.key = randomUUID(); },
       };
       export default { fetch: () => Response.json({
         shared: [loaded, process.env.GREETING],
         own: [process.pid, Math.random(), randomUUID(), randomInt(2 ** 47), randomBytes(16).toString("hex"), crypto.randomUUID(), own.key],
         seen, calls: ++calls,
         nowMs: Date.now(),
       }) };`,
      { env: { GREETING: "hello" } },
    );
    await clones("drawn-by-node", ["warmUp", "beforeSnapshot", "afterRestore"], 7);
  });

  test("Python: the same, with Lambda's decorators", async () => {
    await ready(
      "drawn-by-python",
      `import os, random, secrets, tempfile, time, uuid
from snapshot_restore_py import register_after_restore, register_before_snapshot
loaded = str(uuid.uuid4())
random.random()
seen = []
own = {}
calls = 0
class lifecycle:
    def warm_up():
        seen.append("warmUp")
@register_before_snapshot
def before():
    seen.append("beforeSnapshot")
@register_after_restore
def after():
    seen.append("afterRestore")
    own["key"] = random.random()
def handler(event, context):
    global calls
    calls += 1
    name = tempfile.NamedTemporaryFile(delete=False).name
    return {
        "shared": [loaded, os.environ["GREETING"]],
        "own": [os.getpid(), random.random(), str(uuid.uuid4()), secrets.token_hex(), name, own["key"]],
        "seen": seen, "calls": calls, "nowMs": time.time() * 1000,
    }
`,
      { runtime: "python3", env: { GREETING: "hello" } },
    );
    await clones("drawn-by-python", ["warmUp", "beforeSnapshot", "afterRestore"], 6);
  });

  async function clones(name: string, seen: string[], numbers: number): Promise<void> {
    const shared = new Set<string>();
    const drawn = new Set<unknown>();
    for (let n = 0; n < 6; n++) {
      const answer = (await restored(name)) as {
        shared: unknown[];
        own: unknown[];
        seen: string[];
        calls: number;
        nowMs: number;
      };
      assert.deepEqual(answer.seen, seen);
      assert.equal(answer.calls, 1);
      assert.ok(Math.abs(answer.nowMs - Date.now()) < 5000, JSON.stringify(answer));
      shared.add(JSON.stringify(answer.shared));
      assert.equal(answer.own.length, numbers);
      for (const one of answer.own) drawn.add(one);
    }
    // What the module drew when it was loaded is everybody's; it is loaded once.
    assert.equal(shared.size, 1);
    assert.match([...shared][0] ?? "", /"hello"/);
    assert.equal(drawn.size, 6 * numbers, [...drawn].join());
  }

  test("an async Python function, whose event loop was there before", async () => {
    await ready(
      "loop",
      `import asyncio
async def handler(event, context):
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0.001)
    return await loop.run_in_executor(None, lambda: "thread")
`,
      { runtime: "python3" },
    );
    const response = await call(instance, "loop");
    assert.equal(response.headers.get("cloister-start"), "restored");
    assert.equal(await response.text(), "thread");
  });

  test("a function that the caller keeps warm starts from its snapshot, then is warm", async () => {
    await ready("kept", "let calls = 0; export const handler = async () => ++calls;", {
      reuse: "warm",
    });
    assert.equal(await restored("kept"), 1);
    const second = await call(instance, "kept");
    assert.equal(second.headers.get("cloister-start"), "warm");
    assert.equal(await second.text(), "2");
  });

  test("the record of a call tells how long it was restored, and does not bill it", async () => {
    await ready("recorded", "export const handler = async () => 1;");
    const response = await call(instance, "recorded");
    assert.equal(response.headers.get("cloister-start"), "restored");
    const { phases, start } = (await recordOf(instance, response)) as {
      start: string;
      phases: Record<string, number>;
    };
    assert.equal(start, "restored");
    assert.ok(Number(phases.restore_ms) > 0 && Number(phases.renew_ms) > 0, JSON.stringify(phases));
    assert.equal(phases.init_ms, undefined);
  });

  test("a body of many pieces waits for the function to be back", async () => {
    await ready(
      "large",
      "export default { fetch: async (request) => Response.json((await request.arrayBuffer()).byteLength) };",
    );
    for (const bytes of [10, 3_000_000]) {
      const init = { method: "POST", body: new Uint8Array(bytes) };
      const response = await call(instance, "large", "/", init);
      assert.match(startOf(response), OF_A_SNAPSHOT);
      assert.equal(await response.json(), bytes);
    }
  });

  for (const [hook, name] of [
    ["beforeSnapshot", "before-fails"],
    ["warmUp", "warm-up-fails"],
  ] as const)
    test(`a failing ${hook}: no snapshot, the reason, and the function runs`, async () => {
      const snapshot = await published(
        name,
        `export const lifecycle = { ${hook}() { throw new Error("not today"); } };
         export default { fetch: () => new Response("runs") };`,
      );
      assert.equal(snapshot.state, "failed");
      assert.match(snapshot.reason ?? "", new RegExp(`lifecycle\\.${hook}: not today`));
      assert.equal(await (await call(instance, name)).text(), "runs");
      await logged(name, "not today");
    });

  test("a failing afterRestore is the function's own error, at every start", async () => {
    await ready(
      "after-fails",
      `export const lifecycle = { async afterRestore() { throw new TypeError("no key"); } };
       export default { fetch: () => new Response("never") };`,
    );
    for (let n = 0; n < 3; n++) {
      const refused = await problem(await call(instance, "after-fails"));
      assert.equal(refused.code, "function_init_error", JSON.stringify(refused));
      assert.match(refused.detail ?? "", /lifecycle\.afterRestore: no key/);
    }
  });

  test("timers that were started by the module go on, and a server it opened does no harm", async () => {
    const snapshot = await published(
      "ticking",
      `import { createServer } from "node:net";
       let ticks = 0;
       setInterval(() => { ticks++; }, 5);
       await new Promise((resolve) => createServer().listen("/tmp/own.sock", resolve));
       export default { async fetch() {
         const before = ticks;
         while (ticks < before + 3) await new Promise((resolve) => setTimeout(resolve, 5));
         return new Response("ticks");
       } };`,
    );
    // Whether a listening socket can be kept is the micro-VM's business; the answer is right in any case.
    assert.match(snapshot.state, /ready|failed/);
    if (snapshot.state === "failed") assert.match(snapshot.reason ?? "", /socket/);
    for (let n = 0; n < 3; n++)
      assert.equal(await (await call(instance, "ticking")).text(), "ticks");
  });

  test("a new version is not answered by the old one's snapshot", async () => {
    for (const text of ["first", "second"]) {
      await ready("changing", `export default { fetch: () => Response.json("${text}") };`);
      for (let n = 0; n < 3; n++) assert.equal(await restored("changing"), text);
    }
  });

  test("a function in a container has none, and the reason is told", async () => {
    const files = { "index.mjs": "export default { fetch: () => new Response('x') };" };
    await deploy(instance, { name: "contained", isolation: "container", files });
    const snapshot = await settled("contained");
    assert.equal(snapshot.state, "none");
    assert.match(snapshot.reason ?? "", /asks for a container/);
  });

  test("sandboxd starts anew: the snapshots are gone, the function runs, and gets another one", async () => {
    await ready("returning", "export default { fetch: () => Response.json(1) };");
    const { sandboxd } = instance.pids();
    process.kill(sandboxd ?? 0, "SIGKILL");
    await startsAgain("returning");
    assert.equal((await settled("returning")).state, "ready");
    // One that was brought back without its function, and loaded it, may still wait for a call; it is its last.
    assert.equal(await (await call(instance, "returning")).json(), 1);
    assert.equal(await restored("returning"), 1);
  });

  test("published while sandboxd was away: its calls have one made, also where a prepared sandbox serves them", async () => {
    const { sandboxd } = instance.pids();
    process.kill(sandboxd ?? 0, "SIGKILL");
    const files = { "index.mjs": "export default { fetch: () => Response.json(2) };" };
    await deploy(instance, { name: "unheard", isolation: "microvm", reuse: "fresh", files });
    // Once this one has its snapshot again, a sandbox without a function waits too: what its first call had made.
    await startsAgain("returning");
    let snapshot: Snapshot = { state: "none" };
    for (let tries = 0; tries < TRIES && snapshot.state !== "ready"; tries++) {
      assert.equal(await (await call(instance, "unheard")).json(), 2);
      snapshot = await settled("unheard");
    }
    assert.equal(snapshot.state, "ready", `${JSON.stringify(snapshot)}\n${instance.output()}`);
  });
});
