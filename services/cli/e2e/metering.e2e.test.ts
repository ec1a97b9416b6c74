import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { Agent, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Database, openDatabase } from "#db/database";
import { reconcileUsage } from "#db/usage";
import { connectRedis, disconnectRedis, type Redis } from "#queue/redis";
import { type Instance, startInstance } from "#testkit/instance";
import { foldersOf } from "../instance/folders.ts";
import { embeddedDatabaseUrl } from "../instance/services.ts";
import { cli } from "./run-cli.ts";

/** Callers at the same time; each goes on until it is told to stop. */
const CALLERS = 12;
const ALL_TIME = { fromMs: 0, toMs: 2 ** 42 };
/** A lock of a job that died with its worker, and some heartbeats, on a busy machine, ms. */
const GIVEN_UP_MS = 120_000;

interface Record {
  id: string;
  status: string;
  lost: boolean;
  mibMs: number;
}

describe("usage and records after kill -9 under load", { timeout: 300_000 }, () => {
  const data = mkdtempSync(join(tmpdir(), "cloister-metering-"));
  let instance: Instance;
  let db: Database;
  /** Ids of calls by what their caller saw: an answer's status, or that it broke. */
  const seen = new Map<string, number>();
  let broken = 0;

  before(async () => {
    instance = await startInstance({ dataDirectory: data });
    db = openDatabase(embeddedDatabaseUrl(foldersOf(data)), { connections: 2 });
    const sources = {
      quick: "export const handler = async (event) => 'x'.repeat(100 + (event.n % 50));",
      slow: "export const handler = async () => { await new Promise((r) => setTimeout(r, 40)); return 1; };",
      fails: "export const handler = async () => { throw new Error('on purpose'); };",
    };
    for (const [name, source] of Object.entries(sources)) {
      const response = await fetch(`${instance.url}/v1/functions`, {
        method: "POST",
        headers: { authorization: `Bearer ${instance.key}`, "content-type": "application/json" },
        body: JSON.stringify({ name, memoryMb: 128, files: { "index.mjs": source } }),
      });
      assert.equal(response.status, 201, await response.text());
    }
  });
  after(async () => {
    await db?.close().catch(() => {});
    await instance?.stop();
    rmSync(data, { recursive: true, force: true });
  });

  /** One call; its id is known from the head of the answer on. */
  function call(agent: Agent, name: string, n: number): Promise<void> {
    return new Promise((resolve) => {
      const lost = (): void => {
        broken++;
        resolve();
      };
      const sent = request(
        `${instance.url}/v1/functions/${name}/invocations`,
        {
          agent,
          method: "POST",
          headers: { authorization: `Bearer ${instance.key}`, "content-type": "application/json" },
        },
        (response) => {
          const id = response.headers["cloister-invocation-id"];
          response.on("error", () => {});
          response.on("close", () => {
            // What the queue did not take was not accepted.
            if (typeof id === "string" && response.statusCode !== 503)
              seen.set(id, response.statusCode ?? 0);
            resolve();
          });
          response.resume();
        },
      );
      sent.on("error", lost);
      sent.end(JSON.stringify({ n }));
    });
  }

  /** Callers that go on while `during` runs. */
  async function underLoad(during: () => Promise<void>): Promise<void> {
    let stop = false;
    const agent = new Agent({ keepAlive: true });
    const callers = Array.from({ length: CALLERS }, async (_, caller) => {
      const names = ["quick", "slow", "quick", "fails"];
      for (let n = caller; !stop; n++) {
        const before = broken;
        await call(agent, names[n % names.length] as string, n);
        // A gateway that is away refuses in no time: what is wanted is load, not refusals.
        if (broken > before) await new Promise((resolve) => setTimeout(resolve, 50));
      }
    });
    try {
      await during();
    } finally {
      stop = true;
      await Promise.all(callers);
      agent.destroy();
    }
  }

  const kill = (service: string): void => {
    const pid = instance.pids()[service];
    assert.ok(pid, `${service} runs`);
    process.kill(pid, "SIGKILL");
  };
  const times = (text: string): number => instance.output().split(text).length - 1;
  /** Kills, and waits until `up` has said that it runs again. */
  async function killed(...services: string[]): Promise<void> {
    const again = services.map((name) => {
      const count = times(`${name} runs again`) + 1;
      return instance.said(new RegExp(`(?:${name} runs again[^]*){${count}}`), 60_000);
    });
    for (const service of services) kill(service);
    await Promise.all(again);
  }
  /** So many answers more than now. */
  async function answers(count: number): Promise<void> {
    const goal = seen.size + count;
    while (seen.size < goal) await new Promise((resolve) => setTimeout(resolve, 10));
  }

  async function records(): Promise<Map<string, Record>> {
    const { rows } = await db.pool.query<Record>(
      `select id, status, lost, (memory_mb * billed_ms)::float8 as "mibMs" from invocations`,
    );
    const byId = new Map(rows.map((row) => [row.id, row]));
    assert.equal(byId.size, rows.length, "no invocation has two records");
    return byId;
  }

  /** Which of these have no record; looked at until there are none, as records are written in batches. */
  async function unrecorded(ids: Iterable<string>, boundMs: number): Promise<string[]> {
    const wanted = [...ids];
    const end = performance.now() + boundMs;
    for (;;) {
      const written = await records();
      const missing = wanted.filter((id) => !written.has(id));
      if (missing.length === 0 || performance.now() > end) return missing;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async function agree(): Promise<void> {
    const { differences, records: compared } = await reconcileUsage(db, ALL_TIME);
    assert.deepEqual(differences, []);
    assert.ok(compared > 0);
  }

  for (const one of ["worker", "sandboxd", "gateway", "postgres", "redis", "worker and postgres"]) {
    const services = one.split(" and ");
    test(`${one}: every answer has its record, and usage is their sum`, async () => {
      await underLoad(async () => {
        for (let round = 0; round < 2; round++) {
          await answers(60);
          await killed(...services);
          // In the middle of it all, too.
          await agree();
        }
        await answers(60);
      });
      assert.deepEqual(await unrecorded(seen.keys(), 20_000), []);
      await agree();
    });
  }

  test("what callers saw is what the records say", async () => {
    const written = await records();
    const statuses = new Map<string, number>();
    for (const [id, status] of seen) {
      const record = written.get(id) as Record;
      statuses.set(`${status}`, (statuses.get(`${status}`) ?? 0) + 1);
      if (status === 200) assert.deepEqual([record.status, record.lost], ["ok", false]);
      if (status === 500) assert.equal(record.status, "function_error");
      if (record.lost) assert.equal(record.mibMs, 0);
    }
    assert.ok((statuses.get("200") ?? 0) > 100 && (statuses.get("500") ?? 0) > 20);
    assert.ok((statuses.get("502") ?? 0) > 0, "some calls met the kill");
    assert.ok(
      [...written.values()].some(({ lost }) => lost),
      "and were recorded as lost",
    );
  });

  test("gateway and worker killed together: what ran is recorded once the dead node is given up", async () => {
    let taken: string[] = [];
    const [node] = await inRedis((redis) => redis.zrange("cloister:nodes", -1, -1));
    assert.ok(node);
    await underLoad(async () => {
      await answers(40);
      const again = killed("gateway", "worker");
      // Neither can tell of these any more.
      taken = await jobs();
      // As if it had not spoken for long: what such a node has in its queue is cleared with the next heartbeat of another.
      await inRedis((redis) => redis.zadd("cloister:nodes", "XX", 1, node));
      await again;
      await answers(40);
    });
    assert.ok(taken.length > 0, "some calls met the kill");
    assert.deepEqual(await unrecorded(taken, GIVEN_UP_MS), []);
    assert.deepEqual(await unrecorded(seen.keys(), 20_000), []);
    await agree();
  });

  async function inRedis<T>(work: (redis: Redis) => Promise<T>): Promise<T> {
    const redis = connectRedis(`unix:${join(foldersOf(data).run, "redis.sock")}`, "request");
    return work(redis).finally(() => disconnectRedis(redis));
  }

  /** Ids of the calls that Redis knows: some of them together are one job. */
  async function jobs(): Promise<string[]> {
    return inRedis(async (redis) => {
      const keys = await redis.keys("*:inv_*");
      const batches = keys.filter((key) => /:inv_[0-9a-v]{26}\.\d+\.\d+$/.test(key));
      const data = await Promise.all(batches.map((key) => redis.hget(key, "data")));
      return data.flatMap((text) =>
        (JSON.parse(text ?? "[]") as { id: string }[]).map(({ id }) => id),
      );
    });
  }

  test("the command line tells the same, and a clean stop leaves no journal", async () => {
    const run = (...words: string[]) => cli(["usage", ...words], { data });
    const reconciled = await run("--reconcile", "--json");
    assert.equal(reconciled.code, 0, reconciled.stderr);
    const { rows } = await db.pool.query<{ count: number; mibMs: number }>(
      `select count(*)::int as count, sum(memory_mb * billed_ms)::float8 as "mibMs" from invocations`,
    );
    assert.equal(JSON.parse(reconciled.stdout).records, rows[0]?.count);
    const { totals } = JSON.parse((await run("--json")).stdout) as {
      totals: { invocations: number; gbSeconds: number };
    };
    assert.equal(totals.invocations, rows[0]?.count);
    assert.equal(totals.gbSeconds, (rows[0]?.mibMs ?? 0) / 1_024_000);
    const csv = (await run("--csv")).stdout.trimEnd().split("\r\n").slice(1);
    const sum = csv.reduce((all, line) => all + Number(line.split(",")[2]), 0);
    assert.equal(sum, rows[0]?.count);
    const shown = await run();
    assert.match(shown.stdout, new RegExp(`^total +${rows[0]?.count} `, "m"));
    const wrong = await run("--from", "tomorrow");
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /no time/);
  });

  test("a service that has stopped leaves nothing in the journal", async () => {
    await underLoad(() => answers(50));
    const { records: folder } = foldersOf(data);
    assert.ok(readdirSync(folder).length > 0);
    await db.close();
    await instance.stop();
    assert.deepEqual(readdirSync(folder), []);
  });
});
