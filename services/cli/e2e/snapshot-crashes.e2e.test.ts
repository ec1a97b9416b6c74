import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { startTimeOf, waitGone } from "#embedded/process-life";
import { type Instance, startInstance } from "#testkit/instance";
import { Api } from "../http/api.ts";
import { followLogs } from "../http/logs.ts";
import { leftoversOf } from "./leftovers-of.ts";

/** Nothing may take longer, ms: far less than the hooks wait, far more than an answer takes. */
const PROMPT_MS = 20_000;
/** What a hook waits for: longer than it takes to be killed, less than a hook may take, ms. */
const HOOK_MS = 8000;

type Victim = "monitor" | "worker" | "sandboxd";
const VICTIMS: Victim[] = ["monitor", "worker", "sandboxd"];
/** What a caller may be told when the process that served it was killed. */
const CODES = new Set(["worker_lost", "sandbox_failed", "function_exited"]);

/** A process, told apart from a later one with its number. */
interface Process {
  pid: number;
  startTime: string;
}

describe("kill -9 at every phase of a snapshot", { timeout: 600_000 }, () => {
  let instance: Instance;
  let api: Api;
  let data: string;
  const kills = { monitor: 0, worker: 0, sandboxd: 0 };
  before(async () => {
    data = mkdtempSync(join(tmpdir(), "cloister-snapshot-crashes-"));
    instance = await startInstance({ dataDirectory: data });
    api = new Api({ url: instance.url, key: instance.key });
  });
  after(async () => {
    await instance?.stop();
    assert.deepEqual(leftoversOf(data), []);
    rmSync(data, { recursive: true, force: true });
  });

  async function publish(name: string, source: string, more: object = {}): Promise<void> {
    const files = { "index.mjs": source };
    const config = { name, isolation: "microvm", reuse: "fresh", timeoutMs: 30_000, ...more };
    const response = await api.send("POST", "/v1/functions", {
      body: JSON.stringify({ ...config, files }),
      headers: { "content-type": "application/json" },
    });
    assert.equal(response.status, 201, await response.text());
  }

  const call = (name: string): Promise<Response> =>
    api.send("POST", `/v1/functions/${name}/invocations`, {
      body: "{}",
      headers: { "content-type": "application/json" },
      signal: AbortSignal.timeout(3 * PROMPT_MS),
    });

  /** Its lines from now on; the first that says `text` is waited for. */
  async function listen(name: string) {
    const abort = new AbortController();
    const lines = await followLogs(api, name, abort.signal);
    return async (text: string): Promise<void> => {
      const timer = setTimeout(() => abort.abort(), PROMPT_MS);
      try {
        for await (const line of lines) if (line.text.includes(text)) return;
      } finally {
        clearTimeout(timer);
        abort.abort();
      }
      throw new Error(`${name} never said ${text}. The service said:\n${instance.output()}`);
    };
  }

  /** Kills it and resolves when it has gone; says how many there were to kill. */
  async function kill(victim: Victim): Promise<number> {
    const victims = victim === "monitor" ? monitorsOf(data) : [processOf(instance.pids()[victim])];
    for (const { pid } of victims) process.kill(pid, "SIGKILL");
    kills[victim] += 1;
    for (const { pid, startTime } of victims)
      assert.ok(await waitGone(pid, startTime, PROMPT_MS), `${victim} ${pid} has ended`);
    return victims.length;
  }

  async function runsAgain(victim: Victim): Promise<void> {
    if (victim === "monitor") return;
    await instance.said(new RegExp(`(${victim} runs again[^]*){${kills[victim]}}`), PROMPT_MS);
  }

  /** Of each that was killed one caller may be told: the worker may have given it a call before it heard of its end. */
  async function served(name: string, victim: Victim, killed: number): Promise<void> {
    await runsAgain(victim);
    for (let told = 0; ; told++) {
      const response = await promptly(call(name));
      const said = (await response.json()) as string | { code: string };
      if (typeof said === "object" && CODES.has(said.code) && told < killed) continue;
      assert.equal(response.status, 200, `${JSON.stringify(said)}\n${instance.output()}`);
      assert.equal(said, "answered");
      return;
    }
  }

  /** The answer of a call that was under way: right, or an error that says who died. */
  async function answeredOrTold(answer: Promise<Response>): Promise<void> {
    const response = await promptly(answer);
    const said = (await response.json()) as string | { code: string };
    if (response.status === 200) assert.equal(said, "answered");
    else assert.ok(typeof said === "object" && CODES.has(said.code), JSON.stringify(said));
  }

  for (const victim of VICTIMS) {
    test(`${victim}, while the function gets ready to be frozen: it is called without a snapshot`, async () => {
      const name = `freezing-${victim}`;
      const said = await publishThenListen(name, hookThatWaits("beforeSnapshot"));
      await said("beforeSnapshot waits");
      const killed = await kill(victim);
      assert.ok(killed > 0);
      await served(name, victim, killed);
      await unpublish(name);
    });

    test(`${victim}, while a clone comes back: its caller is answered or told, and so are the next`, async () => {
      const name = `returning-${victim}`;
      await publish(name, hookThatWaits("afterRestore"));
      await frozen(name);
      const said = await listen(name);
      const answer = call(name);
      answer.catch(() => {});
      await said("afterRestore waits");
      assert.ok((await kill(victim)) > 0);
      await answeredOrTold(answer);
      await runsAgain(victim);
      await unpublish(name);
    });

    test(`${victim}, again and again between an answer and the reset behind it`, async () => {
      const name = `resetting-${victim}`;
      await publish(name, "export const handler = async () => 'answered';");
      await frozen(name);
      for (let round = 0; round < 4; round++) {
        assert.equal((await promptly(call(name))).status, 200);
        const killed = await kill(victim);
        await served(name, victim, killed);
      }
      await unpublish(name);
    });
  }

  const hookThatWaits = (hook: "beforeSnapshot" | "afterRestore"): string => `
    export const lifecycle = {
      async ${hook}() {
        console.log("${hook} waits");
        await new Promise((resolve) => setTimeout(resolve, ${HOOK_MS}));
      },
    };
    export const handler = async () => "answered";`;

  async function publishThenListen(name: string, source: string) {
    // Published once so that there is a log to follow, and again to be frozen.
    await publish(name, "export const handler = async () => 'answered';", {
      isolation: "container",
    });
    const said = await listen(name);
    await publish(name, source);
    return said;
  }

  /** So that nothing is made of it while the next test waits for its own. */
  async function unpublish(name: string): Promise<void> {
    const response = await api.send("DELETE", `/v1/functions/${name}`);
    assert.ok(response.ok, await response.text());
  }

  /** Waits until there is a snapshot. */
  async function frozen(name: string): Promise<void> {
    let last: unknown;
    for (const until = Date.now() + 3 * PROMPT_MS; Date.now() < until; ) {
      const response = await api.send("GET", `/v1/functions/${name}`);
      const { snapshot } = (await response.json()) as { snapshot: { state: string } };
      if (snapshot.state === "ready") return;
      last = snapshot;
      // It was published while sandboxd was away: the next call has one made.
      if (snapshot.state === "none") await call(name);
      // Nothing tells over HTTP when it is made.
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(
      `${name} has no snapshot: ${JSON.stringify(last)}. The service said:\n${instance.output()}`,
    );
  }
});

const processOf = (pid: number | undefined): Process => {
  const startTime = pid === undefined ? undefined : startTimeOf(pid);
  assert.ok(pid !== undefined && startTime !== undefined, "it runs");
  return { pid, startTime };
};

/** The monitors of all micro-VMs of an instance. */
function monitorsOf(data: string): Process[] {
  const found: Process[] = [];
  const { id } = JSON.parse(readFileSync(join(data, "up.json"), "utf8")) as { id: string };
  for (const pid of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    try {
      if (readFileSync(`/proc/${pid}/comm`, "latin1") !== "cloister-vm\n") continue;
      if (!readFileSync(`/proc/${pid}/cgroup`, "latin1").includes(`cloister-${id}/`)) continue;
      const startTime = startTimeOf(Number(pid));
      if (startTime) found.push({ pid: Number(pid), startTime });
    } catch {
      // It has ended meanwhile.
    }
  }
  return found;
}

/** Bounded, so that a hang is a failure that says so. */
async function promptly<T>(promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${PROMPT_MS} ms`)), PROMPT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
