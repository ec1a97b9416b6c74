import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { realpathSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { type Instance, startInstance } from "#testkit/instance";
import { SandboxdLauncher } from "../worker/sandbox/index.ts";
import { call, deploy } from "./client.ts";
import { metricsAt } from "./exposition.ts";

/** Clones are made while processors have time; a busy machine lets them wait. */
const TRIES = 600;
const PAUSE_MS = 100;
/** A function that nobody calls keeps none, so it is called again now and then. */
const CALL_AGAIN = 200;

/** Clones that were brought back before their call: real micro-VMs, from the pool of a real worker. */
describe("clones that wait", { timeout: 300_000 }, () => {
  let instance: Instance;
  before(async () => {
    // What was put back to its snapshot waits as well, and none is made beside it; here it goes soon.
    instance = await startInstance({ env: { CLOISTER_IDLE_MS: "500" } });
  });
  after(() => instance?.stop());

  async function published(name: string, more: Record<string, unknown>, source: string) {
    const files = { [more.runtime === "python3" ? "main.py" : "index.mjs"]: source };
    await deploy(instance, { name, isolation: "microvm", files, ...more });
    for (let tries = 0; tries < TRIES; tries++) {
      const response = await fetch(`${instance.url}/v1/functions/${name}`, {
        headers: { authorization: `Bearer ${instance.key}` },
      });
      const { snapshot } = (await response.json()) as { snapshot: { state: string } };
      if (snapshot.state === "ready") return;
      assert.equal(snapshot.state, "making", JSON.stringify(snapshot));
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    throw new Error(`${name} has no snapshot`);
  }

  function socketOf(service: string): string {
    const id = createHash("sha256").update(realpathSync(instance.dataDirectory)).digest("hex");
    return `/run/cloister/${id.slice(0, 8)}/${service}.sock`;
  }

  /** Deletes a function; resolves when none of its clones waits any more, with which no other one's do. */
  async function removed(name: string): Promise<void> {
    const gone = await fetch(`${instance.url}/v1/functions/${name}`, {
      method: "DELETE",
      headers: { authorization: `Bearer ${instance.key}` },
    });
    assert.ok(gone.ok, await gone.text());
    await until((now) => now === 0);
  }

  /** How many wait, as the worker's metrics have it. */
  async function pooled(): Promise<number> {
    const text = await metricsAt(socketOf("worker"));
    return Number(/^cloister_worker_sandboxes\{state="pooled"\} (\d+)$/m.exec(text)?.[1]);
  }

  async function until(count: (now: number) => boolean, again?: () => Promise<unknown>) {
    for (let tries = 1; tries <= TRIES; tries++) {
      if (count(await pooled())) return;
      if (tries % CALL_AGAIN === 0) await again?.();
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    throw new Error(`${await pooled()} clones wait\n${instance.output()}`);
  }

  interface Called {
    start: string | null;
    timing: string;
    body: string;
    status: number;
  }
  async function called(name: string, path = "/"): Promise<Called> {
    const response = await call(instance, name, path);
    return {
      start: response.headers.get("cloister-start"),
      timing: response.headers.get("server-timing") ?? "",
      body: await response.text(),
      status: response.status,
    };
  }

  /** It came out of the pool: restored, and nobody waited for that. */
  const fromPool = ({ start, timing }: Called): boolean =>
    start === "restored" && /acquire;dur=/.test(timing) && !/(create|restore);dur=/.test(timing);

  interface Listed {
    label: string;
    pid: number;
    state: string;
  }
  async function askSandboxd(op: string, more: object = {}): Promise<Record<string, unknown>> {
    const sandboxd = new SandboxdLauncher({ socketPath: socketOf("sandboxd") });
    await sandboxd.connect();
    const reply = await sandboxd.request({ op, ...more });
    sandboxd.close();
    return reply;
  }
  const listed = async () => (await askSandboxd("list")).sandboxes as Listed[];

  /** First processes of a function's sandboxes, as sandboxd has it. */
  const processesOf = async (label: string): Promise<number[]> =>
    (await listed()).filter((one) => one.label === label).map(({ pid }) => pid);

  /** Resolves when nothing in sandboxd's list matches any more. */
  async function noneLeft(matches: (one: Listed) => boolean): Promise<void> {
    for (let tries = 0; (await listed()).some(matches); tries++) {
      assert.ok(tries < TRIES, JSON.stringify(await listed()));
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  for (const [runtime, source] of [
    [
      "node24",
      `import { existsSync, readFileSync, writeFileSync } from "node:fs";
       let seen = "";
       export default { async fetch(request) {
         const secret = new URL(request.url).searchParams.get("secret");
         const found = [seen, globalThis.seen ?? "", process.env.SEEN ?? "", existsSync("/tmp/s") ? readFileSync("/tmp/s", "utf8") : ""];
         seen = globalThis.seen = process.env.SEEN = secret;
         writeFileSync("/tmp/s", secret);
         await new Promise((resolve) => setTimeout(resolve, 200));
         return Response.json({ found, pid: process.pid, drawn: Math.random(), nowMs: Date.now() });
       } };`,
    ],
    [
      "python3",
      `import os, random, time
seen = ""
def handler(event, context):
    global seen
    secret = event["queryStringParameters"]["secret"]
    found = [seen, os.environ.get("SEEN", ""), open("/tmp/s").read() if os.path.exists("/tmp/s") else ""]
    seen = os.environ["SEEN"] = secret
    with open("/tmp/s", "w") as file:
        file.write(secret)
    time.sleep(0.2)
    return {"found": found, "pid": os.getpid(), "drawn": random.random(), "nowMs": time.time() * 1000}
`,
    ],
  ] as const)
    test(`${runtime}: bursts of a fresh function, and no call sees another's secret`, async () => {
      const name = `secret-${runtime}`;
      await published(name, { runtime, reuse: "fresh" }, source);
      const once = () => called(name, `/?secret=${Math.random()}`);
      await once();
      const drawn = new Set<unknown>();
      let calls = 0;
      let taken = 0;
      // Each has one call more than there are sandboxes that were put back.
      for (let size = 2; size < 12 && taken < 2; size++) {
        await until((now) => now > 0, once);
        for (const one of await Promise.all(Array.from({ length: size }, once))) {
          assert.equal(one.status, 200, one.body);
          const answer = JSON.parse(one.body);
          assert.equal(answer.found.join(""), "", one.body);
          assert.ok(Math.abs(answer.nowMs - Date.now()) < 5000, one.body);
          drawn.add(answer.drawn).add(answer.pid);
          calls++;
          if (fromPool(one)) taken++;
        }
      }
      assert.equal(drawn.size, 2 * calls);
      assert.ok(taken >= 2, `${taken} of ${calls} calls got a clone that waited`);
      await removed(name);
    });

  test("calls beyond the warm sandboxes get a clone that waits, and what was used is preferred", async () => {
    await published(
      "beside",
      {},
      `export default { async fetch() {
         await new Promise((resolve) => setTimeout(resolve, 100));
         return new Response("ok");
       } };`,
    );
    await called("beside");
    await until(
      (now) => now > 0,
      () => called("beside"),
    );
    const both = await Promise.all([called("beside"), called("beside")]);
    assert.ok(both.some(fromPool), JSON.stringify(both));
    assert.equal((await called("beside")).start, "warm");
    await removed("beside");
  });

  test("kill -9 of all that wait: the next call gets another one", async () => {
    await published("killed", { reuse: "fresh" }, "export const handler = async () => 1;");
    await called("killed");
    await until(
      (now) => now > 0,
      () => called("killed"),
    );
    const waiting = await processesOf("killed@1");
    assert.ok(waiting.length > 0);
    for (const pid of waiting) process.kill(pid, "SIGKILL");
    await until((now) => now === 0);
    const next = await called("killed");
    assert.deepEqual([next.status, next.body, next.start], [200, "1", "restored"]);
    const now = await processesOf("killed@1");
    assert.ok(now.length > 0 && now.every((pid) => !waiting.includes(pid)));
    await removed("killed");
  });

  test("kill -9 of the worker: those that wait for it end, and the next one serves", async () => {
    await published("left", { reuse: "fresh" }, "export const handler = async () => 1;");
    await called("left");
    await until(
      (now) => now > 0,
      () => called("left"),
    );
    const waiting = await processesOf("left@1");
    assert.ok(waiting.length > 0);
    process.kill(instance.pids().worker ?? 0, "SIGKILL");
    await noneLeft(({ pid }) => waiting.includes(pid));
    const { status, body } = await called("left");
    assert.deepEqual([status, body], [200, "1"]);
    await removed("left");
  });

  test("sandboxd keeps no more micro-VMs ready than it is told", async () => {
    await published("ready", { reuse: "fresh" }, "export const handler = async () => 1;");
    const isReady = ({ label, state }: Listed) => label.startsWith("ready-") && state !== "ending";
    assert.ok((await listed()).some(isReady));
    await askSandboxd("keep", { ready: 0 });
    await noneLeft(({ label }) => label.startsWith("ready-"));
    assert.equal((await called("ready")).body, "1");
    assert.equal((await listed()).some(isReady), false);
    await askSandboxd("keep", { ready: 24 });
    await removed("ready");
  });

  test("a new version, and the function's end, take its clones with them", async () => {
    await published("replaced", { reuse: "fresh" }, "export const handler = async () => 1;");
    const more = () =>
      until(
        (now) => now > 0,
        () => called("replaced"),
      );
    await called("replaced");
    await more();
    await published("replaced", { reuse: "fresh" }, "export const handler = async () => 2;");
    assert.equal((await called("replaced")).body, "2");
    await more();
    assert.equal((await called("replaced")).body, "2");
    await more();
    await removed("replaced");
  });
});
