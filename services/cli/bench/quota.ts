import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Pool } from "undici";
import { z } from "zod";
import { connectRedis, disconnectRedis } from "#queue/redis";
import { type Distribution, distribution } from "#report/statistics";
import { Failure, messageOf } from "../failure.ts";
import { type HostFacts, hostFacts } from "../host/facts.ts";
import { type Folders, foldersOf } from "../instance/folders.ts";
import { freePort } from "../instance/instance.ts";
import {
  embeddedDatabaseUrl,
  embeddedRedisUrl,
  gatewayService,
  makeFolders,
  postgresService,
  redisService,
  runScript,
  type Wiring,
} from "../instance/services.ts";
import type { Running, ServiceSpec } from "../instance/supervised.ts";
import { arrive } from "./open-model.ts";

/** Bounds that no run reaches, so that every part of the check is made. */
const WIDE = {
  requestsPerSecond: 100_000,
  burst: 1_000_000,
  concurrency: 1_000_000,
  gbSecondsPerMonth: 1_000_000_000,
};
/** Of the limit: more is asked for than is allowed. */
const OFFERED_SHARE = 1.3;
/** Calls at once before others are allowed: small beside what a run lets in. */
const BURST_SHARE = 0.1;
const CONNECTIONS = 200;
const MOST_AT_ONCE = 2000;
const SCRIPT_BOUND_MS = 60_000;
/**
 * Nobody serves the calls: they end by this bound, ms. Not a multiple of the time between two checks: each call would end, at its gateway, just when
 * another one is checked, always or never, as a run happens to begin.
 */
const QUEUE_WAIT_MS = "105";

/** What checks cost at one rate: with few, processors fall asleep between two and each wake is paid for; with many, one check waits for another. */
export interface CheckCost {
  ratePerSecond: number;
  /** At the gateway: key, function and quota, until the call is let in. */
  check: Distribution;
  /** From here to Redis and back with a command that does nothing, between the checks: what the machine makes of two processes that wake each other. */
  round_trip: Distribution;
}

export interface QuotaReport {
  host: HostFacts;
  checks: CheckCost[];
  /** Over two gateway processes. */
  exact: {
    limitPerSecond: number;
    burst: number;
    offered: number;
    /** Were due while too many waited: not sent. */
    dropped: number;
    seconds: number;
    admitted: number;
    refused: number;
    /** The burst and what the rate gives in that time. */
    expected: number;
    errorPercent: number;
  };
  firstFailures: Record<string, string>;
}

export interface QuotaBenchOptions {
  /** Of each part: one for each rate of checks, and the limit. */
  seconds: number;
  /** Calls a second whose checks are measured, one rate after the other. */
  rates: readonly number[];
  limitPerSecond: number;
  signal: AbortSignal;
  onProgress(text: string): void;
}

interface Gateways {
  pools: readonly Pool[];
  key: string;
  adminKey: string;
  redisUrl: string;
  stop(): Promise<void>;
}

/** What the check of a limited tenant's calls costs, and how many calls two gateways let in together. No worker runs: a call that is let in ends unserved. */
export async function benchQuota(options: QuotaBenchOptions): Promise<QuotaReport> {
  const { limitPerSecond, onProgress } = options;
  onProgress("starting PostgreSQL, Redis and two gateways");
  const gateways = await startGateways();
  try {
    await publish(gateways);
    const failures: Record<string, string> = {};
    await setQuota(gateways, WIDE);
    const checks: CheckCost[] = [];
    for (const rate of options.rates) {
      onProgress(`checks, ${rate} a second`);
      checks.push(await measureChecks(gateways, options, rate, failures));
    }
    const burst = Math.max(1, Math.round(limitPerSecond * BURST_SHARE));
    await setQuota(gateways, { requestsPerSecond: limitPerSecond, burst });
    onProgress(`${limitPerSecond} a second allowed, more asked for`);
    const exact = await measureLimit(gateways, options, burst, failures);
    return {
      host: hostFacts(),
      checks,
      exact,
      firstFailures: failures,
    };
  } finally {
    await gateways.stop();
  }
}

async function startGateways(): Promise<Gateways> {
  const data = mkdtempSync(join(tmpdir(), "cloister-bench-"));
  const folders = foldersOf(data);
  const running: Running[] = [];
  const pools: Pool[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(pools.map((pool) => pool.destroy()));
    // What others need ends last.
    for (const one of running.reverse()) await one.stop();
    rmSync(folders.run, { recursive: true, force: true });
    rmSync(data, { recursive: true, force: true });
  };
  const start = async (spec: ServiceSpec): Promise<void> => {
    running.push(await spec.start({ onLine: () => {}, onSpawn: () => {} }));
  };
  try {
    makeFolders(folders);
    await start(postgresService(folders));
    await start(redisService(folders));
    const databaseUrl = embeddedDatabaseUrl(folders);
    const script = (path: string): Promise<string> =>
      runScript(path, { CLOISTER_DATABASE_URL: databaseUrl }, SCRIPT_BOUND_MS, () => {});
    await script("services/lib/db/migrate.ts");
    const keys = z
      .object({ key: z.string(), adminKey: z.string() })
      .parse(JSON.parse(await script("services/lib/db/bootstrap.ts")));
    process.env.CLOISTER_QUEUE_WAIT_MS = QUEUE_WAIT_MS;
    for (const name of ["first", "second"]) {
      const wiring = await wiringOf(folders, name, databaseUrl);
      await start(gatewayService(wiring));
      pools.push(new Pool(wiring.url, { connections: CONNECTIONS }));
    }
    return { pools, ...keys, redisUrl: embeddedRedisUrl(folders), stop };
  } catch (error) {
    await stop();
    throw error instanceof Failure
      ? error
      : new Failure(`The gateways cannot start: ${messageOf(error)}.`, "Run ./cloister doctor.");
  }
}

/** Each gateway has a folder of its own for its reply socket. */
async function wiringOf(folders: Folders, name: string, databaseUrl: string): Promise<Wiring> {
  const own = { ...folders, run: join(folders.run, name) };
  makeFolders(own);
  const port = await freePort();
  return {
    folders: own,
    port,
    url: `http://127.0.0.1:${port}`,
    linkSecret: "no worker ever links to it",
    databaseUrl,
    redisUrl: embeddedRedisUrl(folders),
  };
}

async function publish(gateways: Gateways): Promise<void> {
  await send(gateways, "POST", "/v1/functions", gateways.key, {
    name: "fn",
    files: { "index.mjs": "export default { fetch: () => new Response('ok') };" },
  });
}

const setQuota = (gateways: Gateways, quota: object): Promise<void> =>
  send(gateways, "PUT", "/admin/v1/tenants/default/quota", gateways.adminKey, quota);

async function send(
  { pools }: Gateways,
  method: "POST" | "PUT",
  path: string,
  key: string,
  body: object,
): Promise<void> {
  const [pool] = pools as [Pool];
  const response = await pool.request({
    method,
    path,
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const text = await response.body.text();
  if (response.statusCode >= 300)
    throw new Failure(
      `${method} ${path} answered ${response.statusCode}: ${text}.`,
      "Report this.",
    );
}

/** How a call ended at the gateway; nobody serves it, so one that is let in ends with a 503. */
interface Ending {
  admitted: boolean;
  checkMs: number | undefined;
}

async function call(pool: Pool, key: string): Promise<Ending> {
  const { statusCode, headers, body } = await pool.request({
    method: "GET",
    path: "/f/fn/",
    headers: { authorization: `Bearer ${key}` },
  });
  const text = await body.text();
  if (statusCode === 429) return { admitted: false, checkMs: undefined };
  const timing = /^admit;dur=([\d.]+)/.exec(String(headers["server-timing"]));
  if (statusCode !== 503 || !timing)
    throw new Error(`answered ${statusCode} ${text.slice(0, 200)}`);
  return { admitted: true, checkMs: Number(timing[1]) };
}

async function measureChecks(
  { pools, key, redisUrl }: Gateways,
  { seconds, signal }: QuotaBenchOptions,
  ratePerSecond: number,
  failures: Record<string, string>,
): Promise<CheckCost> {
  const [pool] = pools as [Pool];
  const redis = connectRedis(redisUrl, "request");
  const times: number[] = [];
  const trips: number[] = [];
  const model = { ratePerSecond, mostAtOnce: MOST_AT_ONCE, signal };
  const ask = async (): Promise<void> => {
    const { checkMs } = await call(pool, key);
    if (checkMs === undefined) throw new Error("was refused");
    times.push(checkMs);
    const beganMs = performance.now();
    await redis.ping();
    trips.push(performance.now() - beganMs);
  };
  // Connections open and code is compiled first.
  await arrive({ ...model, seconds: 2 }, ask);
  times.length = 0;
  trips.length = 0;
  const found = await arrive({ ...model, seconds }, ask);
  await disconnectRedis(redis);
  const [first] = found.failures;
  if (first !== undefined) failures.check = first;
  return {
    ratePerSecond,
    check: distribution(times, found.failures.length),
    round_trip: distribution(trips, 0),
  };
}

async function measureLimit(
  { pools, key }: Gateways,
  { seconds, limitPerSecond, signal }: QuotaBenchOptions,
  burst: number,
  failures: Record<string, string>,
): Promise<QuotaReport["exact"]> {
  let offered = 0;
  let admitted = 0;
  let refused = 0;
  let firstMs = 0;
  let lastMs = 0;
  const model = {
    ratePerSecond: limitPerSecond * OFFERED_SHARE,
    mostAtOnce: MOST_AT_ONCE,
    signal,
  };
  const ask = async (): Promise<void> => {
    const pool = pools[offered++ % pools.length] as Pool;
    lastMs = performance.now();
    firstMs ||= lastMs;
    const ending = await call(pool, key);
    if (ending.admitted) admitted++;
    else refused++;
  };
  // The limit was just set: the second gateway hears of it, and all connections open.
  await arrive({ ...model, seconds: 1 }, ask);
  // A full bucket again.
  await new Promise((resolve) => setTimeout(resolve, (burst / limitPerSecond) * 1000 + 100));
  [offered, admitted, refused, firstMs, lastMs] = [0, 0, 0, 0, 0];
  const found = await arrive({ ...model, seconds }, ask);
  const [first] = found.failures;
  if (first !== undefined) failures.exact = first;
  const ran = (lastMs - firstMs) / 1000;
  const expected = burst + limitPerSecond * ran;
  return {
    limitPerSecond,
    burst,
    offered,
    dropped: found.dropped,
    seconds: Math.round(ran * 1000) / 1000,
    admitted,
    refused,
    expected: Math.round(expected),
    errorPercent: Math.round((admitted / expected - 1) * 100_000) / 1000,
  };
}
