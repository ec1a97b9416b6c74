import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { type NodeHeartbeat, readNodes } from "#queue/nodes";
import { connectRedis, disconnectRedis, type Redis } from "#queue/redis";
import { type Instance, startInstance } from "#testkit/instance";
import { call, deploy, problem, recordOf } from "./client.ts";

const ROOT = resolve(import.meta.dirname, "../..");
/** A process must be ready by then, a caller have its answer: far more than it takes, ms. */
const BOUND_MS = 30_000;

/** A second sandboxd and a second worker beside those of `up`; the worker offers containers only. */
class SecondNode {
  readonly folder = mkdtempSync(join(tmpdir(), "cloister-node-"));
  readonly sandboxd: ChildProcess;
  readonly #sandboxdReady: Promise<string>;
  worker: ChildProcess | undefined;

  constructor(images: string) {
    const bundles = join(this.folder, "bundles");
    mkdirSync(bundles, { mode: 0o755 });
    this.sandboxd = spawn(
      join(ROOT, "target/release/sandboxd"),
      [
        ...["--socket", join(this.folder, "sandboxd.sock"), "--instance", "5ec0dd00"],
        ...["--images", images, "--bundles", bundles],
      ],
      { stdio: ["ignore", "pipe", "pipe"], cwd: "/" },
    );
    this.#sandboxdReady = said(this.sandboxd, /"ready":\s*true/);
    this.#sandboxdReady.catch(() => {});
  }

  /** Resolves with the node's id when it takes jobs. `env` is that of the first worker. */
  async start(env: NodeJS.ProcessEnv): Promise<string> {
    await this.#sandboxdReady;
    this.worker = spawn(
      process.execPath,
      ["--disable-warning=ExperimentalWarning", join(ROOT, "services/worker/main.ts")],
      {
        stdio: ["ignore", "pipe", "pipe"],
        env: {
          PATH: "/usr/bin:/bin",
          CLOISTER_DATABASE_URL: env.CLOISTER_DATABASE_URL,
          CLOISTER_REDIS_URL: env.CLOISTER_REDIS_URL,
          CLOISTER_LINK_SECRET: env.CLOISTER_LINK_SECRET,
          CLOISTER_SANDBOXD_SOCKET: join(this.folder, "sandboxd.sock"),
          CLOISTER_BUNDLES_DIR: join(this.folder, "bundles"),
          CLOISTER_PATHS: "container",
          CLOISTER_PREPARED: "",
          CLOISTER_NODE_MEMORY_MB: "1024",
        },
      },
    );
    const ready = await said(this.worker, /"ready":\s*true/);
    return (JSON.parse(ready) as { nodeId: string }).nodeId;
  }

  async stop(): Promise<void> {
    await ended(this.worker);
    await ended(this.sandboxd);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The first line that matches. */
function said(child: ChildProcess, pattern: RegExp): Promise<string> {
  const { promise, resolve: done, reject } = Promise.withResolvers<string>();
  let text = "";
  const timer = setTimeout(() => reject(new Error(`it said only: ${text}`)), BOUND_MS);
  const look = (piece: string): void => {
    text += piece;
    const line = text.split("\n").find((one) => pattern.test(one));
    if (line !== undefined) done(line);
  };
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding("utf8").on("data", look);
  child.once("exit", (code) => reject(new Error(`it ended with ${code} and said: ${text}`)));
  return promise.finally(() => clearTimeout(timer));
}

async function ended(child: ChildProcess | undefined): Promise<void> {
  if (!child || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise<void>((done) => child.once("exit", () => done()));
  child.kill("SIGTERM");
  await gone;
}

const environmentOf = (pid: number): NodeJS.ProcessEnv =>
  Object.fromEntries(
    readFileSync(`/proc/${pid}/environ`, "utf8")
      .split("\0")
      .map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]),
  );

describe("two nodes that can do different things", { timeout: 280_000 }, () => {
  let instance: Instance;
  let second: SecondNode;
  let secondId: string;
  let redis: Redis;
  let env: NodeJS.ProcessEnv;

  before(async () => {
    instance = await startInstance();
    env = environmentOf(instance.pids().worker as number);
    // The socket is in a folder that only the services' mount namespace has under its own name.
    redis = connectRedis(env.CLOISTER_REDIS_URL as string, "request");
    second = new SecondNode(process.env.CLOISTER_IMAGES ?? join(ROOT, ".cloister/images"));
    secondId = await second.start(env);
    await deploy(instance, {
      name: "anywhere",
      isolation: "container",
      concurrency: 20,
      files: {
        "index.mjs": `export default { async fetch(request) {
          const ms = Number(new URL(request.url).searchParams.get("ms") ?? 0);
          await new Promise((done) => setTimeout(done, ms));
          return new Response("served");
        } };`,
      },
    });
    await deploy(instance, {
      name: "strict",
      isolation: "microvm",
      files: { "index.mjs": `export default { fetch: () => new Response("strictly") };` },
    });
  });
  after(async () => {
    if (redis) await disconnectRedis(redis);
    await second?.stop();
    await instance?.stop();
  });

  const nodeOf = async (answer: Response): Promise<unknown> =>
    (await recordOf(instance, answer)).nodeId;

  /** The second node has begun something by its own word of now; it speaks every 3 s. */
  async function untilBusy(): Promise<void> {
    const sinceMs = Date.now() + 100;
    for (const end = Date.now() + BOUND_MS; Date.now() < end; ) {
      const there = (await readNodes(redis)).find(({ id }) => id === secondId);
      if (there && there.atMs > sinceMs && there.invocations > 0) return;
      await new Promise((done) => setTimeout(done, 20));
    }
    throw new Error("the second node was given nothing");
  }

  test("each tells what it can do", async () => {
    const nodes = new Map<string, NodeHeartbeat>();
    for (const node of await readNodes(redis)) nodes.set(node.id, node);
    assert.equal(nodes.size, 2);
    assert.deepEqual(nodes.get(secondId)?.kinds, ["container"]);
    const [first] = [...nodes.values()].filter(({ id }) => id !== secondId);
    assert.deepEqual([...(first?.kinds ?? [])].sort(), ["container", "microvm"]);
    for (const node of nodes.values()) {
      assert.ok(node.images.node24, "its runtimes");
      assert.ok(node.processors >= 1 && (node.cpuModel ?? "") !== "");
    }
  });

  test("micro-VMs are asked of the node that has them, containers of both", async () => {
    const strict = await Promise.all(Array.from({ length: 6 }, () => call(instance, "strict")));
    for (const answer of strict) {
      assert.equal(answer.status, 200, await answer.clone().text());
      assert.equal(answer.headers.get("cloister-isolation"), "microvm");
      assert.notEqual(await nodeOf(answer), secondId);
    }
    const many = await Promise.all(
      Array.from({ length: 40 }, () => call(instance, "anywhere", "/?ms=500")),
    );
    const served = new Map<unknown, number>();
    for (const answer of many) {
      assert.equal(answer.status, 200, await answer.clone().text());
      const id = await nodeOf(answer);
      served.set(id, (served.get(id) ?? 0) + 1);
    }
    assert.equal(served.size, 2, JSON.stringify([...served]));
  });

  test("kill -9 of one under load: every caller has an answer or is told, and the other serves what comes", async () => {
    const worker = second.worker as ChildProcess;
    const ids = new Set<string>();
    const underWay = Array.from({ length: 60 }, () => call(instance, "anywhere", "/?ms=8000"));
    await untilBusy();
    worker.kill("SIGKILL");
    let lost = 0;
    for (const answer of await Promise.all(underWay)) {
      const id = answer.headers.get("cloister-invocation-id") ?? "";
      assert.ok(!ids.has(id));
      ids.add(id);
      if (answer.status === 200) continue;
      lost++;
      const told = await problem(answer);
      assert.deepEqual([told.status, told.code], [502, "worker_lost"]);
    }
    assert.equal(ids.size, 60);
    assert.ok(lost > 0 && lost < 60, `${lost} of 60 were at the node that died`);
    const later = await Promise.all(Array.from({ length: 20 }, () => call(instance, "anywhere")));
    for (const answer of later) {
      assert.equal(answer.status, 200, await answer.clone().text());
      assert.notEqual(await nodeOf(answer), secondId);
    }
  });

  test("it comes back with another id and is given work again", async () => {
    secondId = await second.start(env);
    for (;;) {
      const answers = await Promise.all(
        Array.from({ length: 40 }, () => call(instance, "anywhere", "/?ms=200")),
      );
      const nodes = await Promise.all(answers.map((answer) => nodeOf(answer)));
      for (const answer of answers) assert.equal(answer.status, 200, await answer.clone().text());
      if (nodes.includes(secondId)) return;
    }
  });

  test("a drain takes nothing new, and what runs there ends", async () => {
    const underWay = Array.from({ length: 30 }, () => call(instance, "anywhere", "/?ms=8000"));
    await untilBusy();
    await ended(second.worker);
    for (const answer of await Promise.all(underWay))
      assert.equal(answer.status, 200, await answer.clone().text());
    assert.ok(!(await readNodes(redis)).some(({ id }) => id === secondId));
  });
});
