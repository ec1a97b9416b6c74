import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bootstrap, type FirstKeys } from "#db/bootstrap";
import { type Database, openDatabase } from "#db/database";
import { runMigrations } from "#db/migrations";
import { createLog } from "#telemetry/log";
import { type PostgresServer, startPostgresServer } from "#testkit/postgres-server";
import { type RedisServer, startRedisServer } from "#testkit/redis-server";
import { GatewayService, type GatewaySettings } from "../gateway-service.ts";
import { type GatewayProcess, startGatewayProcess } from "./gateway-process.ts";
import { WorkerSide } from "./worker-side.ts";

const SECRET = "a secret of sixteen characters";

/** A gateway with a PostgreSQL, a Redis and a worker's end of its own. */
export interface GatewayRig extends FirstKeys {
  url: string;
  db: Database;
  gateway: GatewayService;
  postgres: PostgresServer;
  redis: RedisServer;
  worker: WorkerSide;
  replyListen: string;
  secret: string;
  /** Another gateway on the same servers. */
  another(change?: Partial<GatewaySettings>): Promise<{ gateway: GatewayService; url: string }>;
  /** Another gateway in a process of its own, whose wall clock is off by `clockStepMs`. */
  anotherProcess(clockStepMs?: number): Promise<GatewayProcess>;
  fetch(path: string, init?: RequestInit): Promise<Response>;
  /** Publishes a function of which only the name matters. */
  publish(name: string, more?: Record<string, unknown>): Promise<void>;
  stop(): Promise<void>;
}

export async function startGatewayRig(change: Partial<GatewaySettings> = {}): Promise<GatewayRig> {
  const folder = mkdtempSync(join(tmpdir(), "cloister-gateway-"));
  const [postgres, redis] = await Promise.all([startPostgresServer(), startRedisServer()]);
  await runMigrations(postgres.url);
  const db = openDatabase(postgres.url, { connections: 2 });
  const keys = await bootstrap(db);
  let made = 0;
  const settingsOf = (more: Partial<GatewaySettings>): GatewaySettings => ({
    databaseUrl: postgres.url,
    redisUrl: redis.url,
    listen: "127.0.0.1:0",
    replyListen: `unix:${join(folder, `gateway-${made++}.sock`)}`,
    linkSecret: SECRET,
    queueWaitMs: 10_000,
    ...change,
    ...more,
  });
  const start = async (more: Partial<GatewaySettings>) => {
    const settings = settingsOf(more);
    const gateway = new GatewayService(settings, createLog("gateway", "silent"));
    return { gateway, url: await gateway.start(), replyListen: settings.replyListen };
  };
  const processes: GatewayProcess[] = [];
  const first = await start({});
  const worker = new WorkerSide(redis.url, SECRET);
  await worker.start();
  const rig: GatewayRig = {
    ...keys,
    ...first,
    secret: SECRET,
    db,
    postgres,
    redis,
    worker,
    another: (more = {}) => start(more),
    async anotherProcess(clockStepMs) {
      const made = await startGatewayProcess(settingsOf({}), clockStepMs);
      processes.push(made);
      return made;
    },
    fetch(path, init = {}) {
      const headers = new Headers(init.headers);
      if (!headers.has("authorization")) headers.set("authorization", `Bearer ${keys.key}`);
      return fetch(`${first.url}${path}`, {
        signal: AbortSignal.timeout(30_000),
        redirect: "manual",
        ...init,
        headers,
      });
    },
    async publish(name, more = {}) {
      const response = await rig.fetch("/v1/functions", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ name, files: { "index.mjs": "export default {};" }, ...more }),
      });
      if (response.status !== 201) throw new Error(await response.text());
      await response.arrayBuffer();
    },
    async stop() {
      await Promise.all(processes.map((one) => one.kill()));
      await worker.stop();
      await first.gateway.drain();
      await db.close().catch(() => {});
      await Promise.all([redis.stop(), postgres.stop()]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
  return rig;
}
