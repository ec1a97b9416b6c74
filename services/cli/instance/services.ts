import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { startPostgres } from "#embedded/postgres";
import { childEnd, endChild } from "#embedded/process-life";
import { startRedis } from "#embedded/redis";
import { eachLine, readyLine } from "#embedded/server-start";
import { APP, account, bound, PROJECT_ROOT, spawnAs } from "#embedded/unprivileged";
import { Failure } from "../failure.ts";
import { type Folders, imagesFolder } from "./folders.ts";
import { placementRulesEnvironment } from "./placement-rules.ts";
import type { Running, ServiceSpec, StartHooks } from "./supervised.ts";

export const SERVICE_USER = "cloister";
const DATABASE_USER = "cloister-db";
const NODE = `${APP}/node_modules/node-24/bin/node`;
/**
 * The young generation in pieces of 8 MB instead of 16: a service under load copies some 12 MB in each collection else, and stands still for 12 ms each
 * second, 20 at times, which is the p99 of a call that has nothing to do with the load. So it is 4 ms twice as often, for 2 % more processor time.
 */
const SERVICE_FLAGS = ["--disable-warning=ExperimentalWarning", "--max-semi-space-size=8"];
const READY = /"ready":\s*true/;
const START_BOUND_MS = 30_000;
/** The gateway waits for its callers, the worker for its invocations; both bound that themselves, this is the last word, ms. */
const DRAIN_BOUND_MS = 45_000;

/** Settings of the environment that are handed on to gateway and worker when somebody set them. */
const PASSED_ON = [
  "CLOISTER_NODE_MEMORY_MB",
  "CLOISTER_WORKER_CONCURRENCY",
  "CLOISTER_PATHS",
  "CLOISTER_BACKLOG",
  "CLOISTER_BACKLOG_PER_TENANT",
  "CLOISTER_IDLE_MS",
  "CLOISTER_PREPARED",
  "CLOISTER_CLONES_PER_FUNCTION",
  "CLOISTER_SNAPSHOT_WARM_TURNS",
  "CLOISTER_QUEUE_WAIT_MS",
  "CLOISTER_RETENTION_DAYS",
  "CLOISTER_LOG_LEVEL",
] as const;

export interface Wiring {
  folders: Folders;
  port: number;
  url: string;
  linkSecret: string;
  databaseUrl: string;
  redisUrl: string;
}

/** Makes the folders of a run with the rights their users need. */
export function makeFolders(folders: Folders): void {
  const { uid, gid } = account(SERVICE_USER);
  mkdirSync(folders.logs, { recursive: true, mode: 0o750 });
  for (const [folder, mode] of [
    [folders.bundles, 0o755],
    [folders.records, 0o700],
    [folders.run, 0o750],
  ] as const) {
    mkdirSync(folder, { recursive: true });
    chownSync(folder, uid, gid);
    chmodSync(folder, mode);
  }
}

export const postgresService = (folders: Folders): ServiceSpec => ({
  name: "postgres",
  start: (hooks) =>
    startPostgres({
      dataDirectory: join(folders.data, "postgres"),
      socketDirectory: join(folders.run, "postgres"),
      user: DATABASE_USER,
      clientGroup: SERVICE_USER,
      ...hooks,
    }),
});

/** What `postgresService` serves at, known before it runs. */
export const embeddedDatabaseUrl = (folders: Folders): string =>
  `postgresql://cloister@localhost/cloister?host=${encodeURIComponent(join(folders.run, "postgres"))}`;

export const redisService = (folders: Folders): ServiceSpec => ({
  name: "redis",
  start: (hooks) =>
    startRedis({
      dataDirectory: join(folders.data, "redis"),
      socketPath: join(folders.run, "redis.sock"),
      user: SERVICE_USER,
      ...hooks,
    }),
});

export const embeddedRedisUrl = (folders: Folders): string =>
  `unix:${join(folders.run, "redis.sock")}`;

/** Runs as root: it alone may make namespaces and cgroups. */
export function sandboxdService(folders: Folders, extraArguments: string[] = []): ServiceSpec {
  return {
    name: "sandboxd",
    removesLeftovers: true,
    async start(hooks): Promise<Running> {
      const program = join(PROJECT_ROOT, "target/release/sandboxd");
      if (!existsSync(program)) {
        throw new Failure("sandboxd has not been built.", "Run ./cloister setup.");
      }
      const child = spawn(
        "setpriv",
        [
          // Polite: on SIGTERM it ends its sandboxes and removes their cgroups; pid 1 of each dies with it in any case.
          "--pdeathsig=TERM",
          "--",
          program,
          ...["--socket", join(folders.run, "sandboxd.sock"), "--socket-group", SERVICE_USER],
          ...["--instance", folders.id, "--images", imagesFolder(), "--bundles", folders.bundles],
          ...extraArguments,
        ],
        {
          stdio: ["ignore", "pipe", "pipe"],
          detached: true,
          cwd: "/",
          env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C.UTF-8" },
        },
      );
      return served("sandboxd", child, hooks, 15_000);
    },
  };
}

export const gatewayService = (wiring: Wiring): ServiceSpec => ({
  name: "gateway",
  start: (hooks) =>
    nodeService("gateway", hooks, {
      bind: { records: wiring.folders.records },
      env: {
        ...shared(wiring),
        CLOISTER_LISTEN: `127.0.0.1:${wiring.port}`,
        CLOISTER_PUBLIC_URL: wiring.url,
        CLOISTER_RECORDS_DIR: bound("records"),
        CLOISTER_REPLY_LISTEN: `unix:${join(wiring.folders.run, "gateway.sock")}`,
      },
    }),
});

export const workerService = (wiring: Wiring): ServiceSpec => ({
  name: "worker",
  start: (hooks) =>
    nodeService("worker", hooks, {
      bind: { bundles: wiring.folders.bundles, records: wiring.folders.records },
      env: {
        ...shared(wiring),
        CLOISTER_SANDBOXD_SOCKET: join(wiring.folders.run, "sandboxd.sock"),
        CLOISTER_BUNDLES_DIR: bound("bundles"),
        CLOISTER_RECORDS_DIR: bound("records"),
        CLOISTER_WORKER_METRICS:
          process.env.CLOISTER_WORKER_METRICS || join(wiring.folders.run, "worker.sock"),
      },
    }),
});

function shared(wiring: Wiring): Record<string, string> {
  const env: Record<string, string> = {
    NODE_ENV: "production",
    CLOISTER_DATABASE_URL: wiring.databaseUrl,
    CLOISTER_REDIS_URL: wiring.redisUrl,
    CLOISTER_LINK_SECRET: wiring.linkSecret,
    ...placementRulesEnvironment(wiring.folders),
  };
  for (const name of PASSED_ON) {
    const value = process.env[name];
    if (value !== undefined) env[name] = value;
  }
  // OpenTelemetry's, of which its specification has many.
  for (const [name, value] of Object.entries(process.env))
    if (name.startsWith("OTEL_") && value !== undefined) env[name] = value;
  return env;
}

async function nodeService(
  name: string,
  hooks: StartHooks,
  options: { env: Record<string, string>; bind?: Record<string, string> },
): Promise<Running> {
  const child = spawnAs({
    user: SERVICE_USER,
    argv: [NODE, ...SERVICE_FLAGS, `${APP}/services/${name}/main.ts`],
    // A killed supervisor leaves nobody to drain for.
    pdeathsig: "KILL",
    ...options,
  });
  return served(name, child, hooks, DRAIN_BOUND_MS);
}

async function served(
  name: string,
  child: ChildProcess,
  hooks: StartHooks,
  drainBoundMs: number,
): Promise<Running> {
  hooks.onSpawn(child);
  await readyLine(child, name, READY, START_BOUND_MS, hooks.onLine);
  return {
    child,
    stop: () =>
      endChild(child, [
        { signal: "SIGTERM", boundMs: drainBoundMs },
        { signal: "SIGKILL", boundMs: 5000 },
      ]),
  };
}

/** Runs a script of the source tree to its end as the services' user. Resolves with what it printed on stdout. */
export async function runScript(
  path: string,
  env: Record<string, string>,
  boundMs: number,
  onLine: (line: string) => void,
): Promise<string> {
  const child = spawnAs({
    user: SERVICE_USER,
    argv: [NODE, "--disable-warning=ExperimentalWarning", `${APP}/${path}`],
    pdeathsig: "KILL",
    env,
  });
  const out: string[] = [];
  const said: string[] = [];
  child.stdout?.setEncoding("utf8").on("data", (text: string) => out.push(text));
  eachLine([child.stderr], (line) => {
    said.push(line);
    onLine(line);
  });
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const timer = setTimeout(() => child.kill("SIGKILL"), boundMs);
  const { code, signal } = await childEnd(child);
  clearTimeout(timer);
  await closed;
  if (code === 0) return out.join("");
  throw new Failure(
    `${path} ended with ${code ?? signal}: ${said.slice(-5).join("\n") || "it said nothing"}`,
    "See DIR/logs/up.log; if the database is your own, check CLOISTER_DATABASE_URL.",
  );
}
