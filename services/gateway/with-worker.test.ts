import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { createLog } from "#telemetry/log";
import { openWorkerDatabase } from "../worker/database.ts";
import { SandboxdStandIn } from "../worker/testkit/sandboxd-stand-in.ts";
import { WorkerService } from "../worker/worker-service.ts";
import { type GatewayRig, startGatewayRig } from "./testkit/gateway-rig.ts";

/** The real worker and real runners behind the gateway; only what isolates them is left out, which is tested where it is made. */
let rig: GatewayRig;
let folder: string;
let sandboxd: SandboxdStandIn;
let worker: WorkerService;

const MAIN = `
import json

async def app(scope, receive, send):
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-path", scope["path"].encode())]})
    await send({"type": "http.response.body", "body": body})
`;

before(async () => {
  process.umask(0o022);
  folder = await mkdtemp(join(tmpdir(), "cloister-with-worker-"));
  rig = await startGatewayRig();
  await rig.worker.stop();
  await rig.db.pool.query(
    "create table invocations_20200101 partition of invocations for values from ('2020-01-01 00:00:00+00') to ('2020-01-02 00:00:00+00')",
  );
  sandboxd = new SandboxdStandIn(join(folder, "bundles"));
  await sandboxd.listen();
  worker = new WorkerService(
    {
      nodeId: "node_real",
      redisUrl: rig.redis.url,
      linkSecret: rig.secret,
      sandboxdSocket: sandboxd.path,
      bundlesDir: join(folder, "bundles"),
      memoryMb: 4096,
      concurrency: 50,
      idleMs: 60_000,
      prepared: [],
      queueWaitMs: 20_000,
      retentionDays: 40,
    },
    openWorkerDatabase(rig.postgres.url),
    createLog("worker", "silent"),
  );
  await worker.start();
  await rig.publish("app", { runtime: "python3", files: { "main.py": MAIN } });
});
after(async () => {
  await worker?.drain();
  await sandboxd?.close();
  await rig?.stop();
  await rm(folder, { recursive: true, force: true });
});

test("a request goes through queue, worker and runner, and its answer comes back", async () => {
  for (const start of [/^(cold|prepared)$/, /^warm$/]) {
    const response = await rig.fetch("/f/app/a/b?c", { method: "POST", body: "sent" });
    assert.equal(response.status, 201, await response.clone().text());
    assert.equal(response.headers.get("x-path"), "/a/b");
    assert.match(response.headers.get("cloister-start") ?? "", start);
    assert.match(
      response.headers.get("server-timing") ?? "",
      /queue;dur=.*acquire;dur=.*handler;dur=.*total;dur=/,
    );
    assert.equal(await response.text(), "sent");
  }
});

test("a large body streams through all of them", async () => {
  const body = Buffer.alloc(5 << 20, "0123456789");
  const response = await rig.fetch("/f/app/", { method: "POST", body });
  assert.equal(response.status, 201);
  assert.ok(body.equals(Buffer.from(await response.arrayBuffer())));
});

test("quick and slow starts at once: each caller gets its own answer", async () => {
  await rig.publish("other", { runtime: "python3", files: { "main.py": MAIN } });
  // Warm answers overtake cold starts on the same link.
  const names = Array.from({ length: 24 }, (_, n) => (n % 6 === 0 ? "other" : "app"));
  await Promise.all(
    names.map(async (name, n) => {
      const response = await rig.fetch(`/f/${name}/${n}`, { method: "POST", body: `body ${n}` });
      assert.equal(response.status, 201, await response.clone().text());
      assert.equal(response.headers.get("x-path"), `/${n}`);
      assert.equal(await response.text(), `body ${n}`);
    }),
  );
});

test("a function that fails to load says so; less isolation than the policy allows is refused", async () => {
  await rig.publish("broken", { runtime: "python3", files: { "main.py": "def" } });
  const broken = await rig.fetch("/f/broken/");
  assert.equal(broken.status, 500);
  assert.equal(((await broken.json()) as { code: string }).code, "function_init_error");
  await rig.publish("strict", { runtime: "python3", isolation: "microvm" });
  for (const [headers, status, code] of [
    [{ "cloister-isolation": "container" }, 403, "isolation_not_allowed"],
    [{}, 503, "isolation_unavailable"],
  ] as const) {
    const response = await rig.fetch("/f/strict/", { headers });
    assert.equal(response.status, status);
    assert.equal(((await response.json()) as { code: string }).code, code);
  }
});

test("the worker has what is past its time removed from the database", async () => {
  // It does that beside its work and tells nobody: looked at until it is done, at most 10 s.
  const end = performance.now() + 10_000;
  for (;;) {
    const { rows } = await rig.db.pool.query("select to_regclass('invocations_20200101') as old");
    if (rows[0].old === null) return;
    assert.ok(performance.now() < end, "still there after 10 s");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
});
