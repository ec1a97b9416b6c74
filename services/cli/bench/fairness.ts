import { type ChildProcess, fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { Pool } from "undici";
import { z } from "zod";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { type Distribution, distribution } from "#report/statistics";
import { type HostFacts, hostFacts } from "../host/facts.ts";
import { Api } from "../http/api.ts";

/** Pause between two calls of the quiet tenant, ms: it asks for little, and often enough that a run has a p99. */
const PAUSE_MS = 20;
/** The flood is at its height by then, ms. */
const RISE_MS = 1000;
/** A flood beforehand that does not count, ms: sandboxes start, and a service that began a moment ago compiles its code, which takes so many calls. */
const WARM_UP_MS = 6000;
const HELLO = "examples/hello/index.mjs";

export interface FairnessOptions {
  /** The service, with a key that may make tenants. */
  admin: Api;
  /** Of each part of each round. */
  seconds: number;
  rounds: number;
  /** The flood's calls at once. */
  calls: number;
  signal: AbortSignal;
  onProgress(text: string): void;
}

export interface FairnessReport {
  host: HostFacts;
  calls: number;
  /** The quiet tenant without the flood, and beside it. */
  alone: Distribution;
  beside: Distribution;
  /** p99 beside the flood, of p99 alone. */
  p99_ratio: number | null;
  p50_ratio: number | null;
  flood: { answered: number; refused: number; failed: number; rps: number };
  /** Calls of the flood that were answered while one of the quiet tenant's was under way: on average, by count, whatever the machine's speed. */
  flood_answers_per_quiet_call: number;
}

interface Guest {
  tenant: string;
  key: string;
}

interface Counts {
  answered: number;
  refused: number;
  failed: number;
}

/** How long a tenant's few calls take alone and beside another tenant's flood, in turn, against a running service. Two tenants are made for it and deleted. */
export async function benchFairness(options: FairnessOptions): Promise<FairnessReport> {
  const { admin, seconds, rounds, calls, signal, onProgress } = options;
  const run = randomBytes(3).toString("hex");
  const guests: Guest[] = [];
  let flood: ChildProcess | undefined;
  const pool = new Pool(admin.url, { connections: 1, pipelining: 1 });
  try {
    for (const name of [`bench-flood-${run}`, `bench-quiet-${run}`])
      guests.push(await guest(admin, name));
    const [loud, quiet] = guests as [Guest, Guest];
    const ask = (): Promise<number> => timed(pool, quiet.key);
    const alone: number[] = [];
    const beside: number[] = [];
    const total: Counts = { answered: 0, refused: 0, failed: 0 };
    let floodedMs = 0;
    let failures = 0;
    const measure = async (into: number[]): Promise<void> => {
      const endMs = performance.now() + seconds * 1000;
      while (performance.now() < endMs && !signal.aborted) {
        await ask().then(
          (ms) => into.push(ms),
          () => failures++,
        );
        await pause(PAUSE_MS, signal);
      }
    };
    const beginFlood = (): ChildProcess => {
      flood = fork(
        join(import.meta.dirname, "flood-process.ts"),
        [admin.url, "/f/hello/", String(calls)],
        { execArgv: ["--disable-warning=ExperimentalWarning"] },
      );
      flood.send(loud.key);
      return flood;
    };
    onProgress(`warm-up: ${calls} calls at once`);
    const warming = beginFlood();
    await Promise.all([ask(), pause(WARM_UP_MS, signal)]);
    await end(warming);
    for (let round = 1; round <= rounds && !signal.aborted; round++) {
      onProgress(`round ${round} of ${rounds}: alone, then beside ${calls} calls at once`);
      await measure(alone);
      const flooding = beginFlood();
      await pause(RISE_MS, signal);
      const before = await countsOf(flooding);
      const beganMs = performance.now();
      await measure(beside);
      const after = await countsOf(flooding);
      floodedMs += performance.now() - beganMs;
      for (const key of ["answered", "refused", "failed"] as const)
        total[key] += after[key] - before[key];
      await end(flooding);
    }
    const [a, b] = [distribution(alone, 0), distribution(beside, failures)];
    const meanMs = beside.reduce((sum, ms) => sum + ms, 0) / Math.max(1, beside.length);
    const rate = total.answered / Math.max(1, floodedMs);
    return {
      host: hostFacts(),
      calls,
      alone: a,
      beside: b,
      p99_ratio: ratio(b.p99_ms, a.p99_ms),
      p50_ratio: ratio(b.p50_ms, a.p50_ms),
      flood: { ...total, rps: Math.round(rate * 1000) },
      flood_answers_per_quiet_call: Math.round(rate * meanMs * 10) / 10,
    };
  } finally {
    if (flood) await end(flood);
    await pool.destroy();
    for (const { tenant } of guests)
      await admin.send("DELETE", `/admin/v1/tenants/${tenant}?force=true`).catch(() => {});
  }
}

/** Ends early when the run is to end. */
const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  setTimeout(ms, undefined, { signal }).catch(() => {});

const ratio = (a: number | null, b: number | null): number | null =>
  a === null || b === null ? null : Math.round((a / b) * 100) / 100;

const idSchema = z.object({ id: z.string() });
const keySchema = z.object({ key: z.string() });

/** A trusted tenant with a key and examples/hello, so that both use what is there in containers and micro-VMs alike. */
async function guest(admin: Api, name: string): Promise<Guest> {
  const json = (body: object): RequestInit => ({
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
  });
  const { id } = await admin.json(
    "POST",
    "/admin/v1/tenants",
    idSchema,
    json({ name, tier: "trusted" }),
  );
  const { key } = await admin.json(
    "POST",
    `/admin/v1/tenants/${id}/keys`,
    keySchema,
    json({ name: "bench", scopes: ["invoke", "deploy", "read"] }),
  );
  const files = { "index.mjs": readFileSync(join(PROJECT_ROOT, HELLO), "utf8") };
  const own = new Api({ url: admin.url, key });
  await own.json(
    "POST",
    "/v1/functions",
    z.object({ version: z.number() }),
    json({ name: "hello", isolation: "container", files }),
  );
  return { tenant: id, key };
}

/** Time of one call, ms; rejects unless it was served. */
async function timed(pool: Pool, key: string): Promise<number> {
  const beganMs = performance.now();
  const { statusCode, body } = await pool.request({
    method: "GET",
    path: "/f/hello/",
    headers: { authorization: `Bearer ${key}` },
  });
  await body.dump();
  if (statusCode !== 200) throw new Error(`answered ${statusCode}`);
  return performance.now() - beganMs;
}

async function countsOf(flood: ChildProcess): Promise<Counts> {
  const answer = once(flood, "message");
  flood.send("counts");
  const [counts] = (await answer) as [Counts];
  return counts;
}

async function end(flood: ChildProcess): Promise<void> {
  if (flood.exitCode !== null || flood.signalCode !== null) return;
  const gone = once(flood, "exit");
  flood.disconnect();
  await gone;
}
