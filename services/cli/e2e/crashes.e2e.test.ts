import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startTimeOf, waitGone } from "#embedded/process-life";
import { type Instance, startInstance } from "#testkit/instance";
import { Api } from "../http/api.ts";
import { followLogs } from "../http/logs.ts";

/** A caller must have its answer within this, whatever ends, ms: far less than any timeout of the function, far more than it takes. */
const PROMPT_MS = 10_000;

/** A function must begin to run within this, ms; its sandbox has to be made first. */
const RUNS_MS = 30_000;

describe("what a kill -9 does to callers", { timeout: 300_000 }, () => {
  let instance: Instance;
  let api: Api;

  before(async () => {
    instance = await startInstance();
    api = new Api({ url: instance.url, key: instance.key });
    await publish("hello", "export const handler = async () => 'hello';");
    await publish(
      "waits",
      `export const handler = () => { console.log("started"); return new Promise(() => {}); };`,
    );
  });
  after(() => instance?.stop());

  async function publish(name: string, source: string): Promise<void> {
    const body = JSON.stringify({ name, timeoutMs: 120_000, files: { "index.mjs": source } });
    const headers = { "content-type": "application/json" };
    const response = await api.send("POST", "/v1/functions", { body, headers });
    assert.equal(response.status, 201, await response.text());
  }

  const call = (name: string): Promise<Response> =>
    api.send("POST", `/v1/functions/${name}/invocations`, {
      body: "{}",
      headers: { "content-type": "application/json" },
      signal: AbortSignal.timeout(60_000),
    });

  /** Calls, sent together, whose function has begun to run. */
  async function callsUnderWay(count: number): Promise<Promise<Response>[]> {
    const abort = new AbortController();
    const lines = await followLogs(api, "waits", abort.signal);
    const answers = Array.from({ length: count }, () => call("waits"));
    const run = (async () => {
      let begun = 0;
      for await (const { text } of lines) if (text.includes("started") && ++begun === count) return;
    })();
    // They answer only after their worker, or something else, has gone.
    const early = Promise.race(answers).then(async (response) => {
      throw new Error(`one was answered before all ran: ${await response.clone().text()}`);
    });
    for (const promise of [early, ...answers]) promise.catch(() => {});
    try {
      await promptly(Promise.race([run, early]), RUNS_MS);
    } catch (error) {
      throw new Error(`The service said:\n${instance.output()}`, { cause: error });
    } finally {
      abort.abort();
      run.catch(() => {});
    }
    return answers;
  }

  /** In an object, because a promise of a promise is one. */
  async function callUnderWay(): Promise<{ answer: Promise<Response> }> {
    const [answer] = await callsUnderWay(1);
    return { answer: answer as Promise<Response> };
  }

  function kill(service: string): { pid: number; startTime: string } {
    const pid = instance.pids()[service];
    assert.ok(pid, `${service} runs`);
    const startTime = startTimeOf(pid);
    assert.ok(startTime);
    process.kill(pid, "SIGKILL");
    return { pid, startTime };
  }

  /** Bounded, so that a hang is a failure that says so. */
  async function promptly<T>(promise: Promise<T>, boundMs = PROMPT_MS): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`nothing in ${boundMs} ms`)), boundMs);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
  }

  async function recovers(service: string): Promise<void> {
    await instance.said(new RegExp(`${service} runs again`), 30_000);
    // The queue may hand the first call to nobody for a moment; what matters is that callers wait and are served.
    const response = await call("hello");
    assert.equal(response.status, 200, await response.clone().text());
    assert.equal(await response.json(), "hello");
  }

  test("worker: each of its callers gets 502 worker_lost at once, the next are served", async () => {
    // More than go alone: several of them are one job.
    const answers = await callsUnderWay(8);
    kill("worker");
    for (const response of await promptly(Promise.all(answers))) {
      assert.equal(response.status, 502);
      assert.equal(((await response.json()) as { code: string }).code, "worker_lost");
    }
    await recovers("worker");
  });

  test("sandboxd: its callers get 502 sandbox_failed at once, the next are served", async () => {
    const { answer } = await callUnderWay();
    kill("sandboxd");
    const response = await promptly(answer);
    assert.equal(response.status, 502);
    assert.equal(((await response.json()) as { code: string }).code, "sandbox_failed");
    await recovers("sandboxd");
  });

  test("gateway: its callers see the connection break, the next are served", async () => {
    const { answer } = await callUnderWay();
    kill("gateway");
    await assert.rejects(promptly(answer), /cannot be reached/);
    await recovers("gateway");
  });

  test("redis: calls are served again", async () => {
    const { pid, startTime } = kill("redis");
    assert.ok(await waitGone(pid, startTime, PROMPT_MS));
    await recovers("redis");
  });

  test("postgres: functions are still there", async () => {
    const { pid, startTime } = kill("postgres");
    assert.ok(await waitGone(pid, startTime, PROMPT_MS));
    await recovers("postgres");
    const response = await api.send("GET", "/v1/functions/hello");
    assert.equal(response.status, 200);
  });
});
