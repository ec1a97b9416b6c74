import { type ChildProcess, fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { Pool } from "undici";
import { z } from "zod";
import type { Path } from "#contracts/function";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { ascending, type Distribution, distribution, percentile } from "#report/statistics";
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
  /** Where the flood's functions run; with several, a round has a part beside each. The quiet tenant's runs in a container. */
  isolations: readonly Path[];
  signal: AbortSignal;
  onProgress(text: string): void;
}

export interface FairnessReport {
  host: HostFacts;
  calls: number;
  /** The quiet tenant without a flood. */
  alone: Distribution;
  alone_phases: Phases;
  floods: FloodReport[];
}

export interface FloodReport {
  isolation: Path;
  /** The quiet tenant beside this flood. */
  beside: Distribution;
  beside_phases: Phases;
  /** p99 beside the flood, of p99 alone. */
  p99_ratio: number | null;
  p50_ratio: number | null;
  flood: { answered: number; refused: number; failed: number; rps: number };
  /** Calls of the flood that were answered while one of the quiet tenant's was under way: on average, by count, whatever the machine's speed. */
  flood_answers_per_quiet_call: number;
}

/** Phases that follow each other in a call, in the words of `Server-Timing`. */
const IN_TURN: ReadonlySet<string> = new Set(["admit", "queue", "place", "acquire", "handler"]);
/** What a call's time went to, each phase by itself, ms; `other` is what none of them holds: the client, the answer's way back. */
export type Phases = Record<string, { p50_ms: number; p99_ms: number }>;

interface Guest {
  tenant: string;
  api: Api;
  key: string;
}

interface Counts {
  answered: number;
  refused: number;
  failed: number;
}

interface Timed {
  ms: number;
  /** `Server-Timing`. */
  timing: string;
}

/** What the quiet tenant's calls took; each phase's times are in no order. */
class Sample {
  readonly times: number[] = [];
  failures = 0;
  readonly #phases = new Map<string, number[]>();

  add({ ms, timing }: Timed): void {
    this.times.push(ms);
    let other = ms;
    for (const [, name = "", text] of timing.matchAll(/(\w+);dur=([\d.]+)/g)) {
      if (!IN_TURN.has(name)) continue;
      const part = Number(text);
      other -= part;
      this.#note(name, part);
    }
    this.#note("other", other);
  }

  get distribution(): Distribution {
    return distribution(this.times, this.failures);
  }

  get phases(): Phases {
    const told: Phases = {};
    for (const [name, all] of this.#phases) {
      const sorted = ascending(all);
      const at = (part: number): number =>
        Math.round((percentile(sorted, part) as number) * 1000) / 1000;
      told[name] = { p50_ms: at(0.5), p99_ms: at(0.99) };
    }
    return told;
  }

  #note(name: string, ms: number): void {
    const all = this.#phases.get(name);
    if (all) all.push(ms);
    else this.#phases.set(name, [ms]);
  }
}

/** One kind of flood: its function, and what there was beside it. */
interface Flood {
  readonly isolation: Path;
  readonly path: string;
  readonly beside: Sample;
  readonly total: Counts;
  ms: number;
}

/** How long a tenant's few calls take alone and beside another tenant's flood, in turn, against a running service. Two tenants are made for it and deleted. */
export async function benchFairness(options: FairnessOptions): Promise<FairnessReport> {
  const { admin, seconds, rounds, calls, isolations, signal, onProgress } = options;
  const run = randomBytes(3).toString("hex");
  const guests: Guest[] = [];
  let flooding: ChildProcess | undefined;
  const pool = new Pool(admin.url, { connections: 1, pipelining: 1 });
  try {
    for (const name of [`bench-flood-${run}`, `bench-quiet-${run}`])
      guests.push(await guest(admin, name));
    const [loud, quiet] = guests as [Guest, Guest];
    await deployHello(quiet, "hello", "container");
    const floods: Flood[] = [];
    for (const isolation of isolations) {
      const name = `hello-${isolation}`;
      await deployHello(loud, name, isolation);
      const total = { answered: 0, refused: 0, failed: 0 };
      floods.push({ isolation, path: `/f/${name}/`, beside: new Sample(), total, ms: 0 });
    }
    const alone = new Sample();
    const measure = async (into: Sample): Promise<void> => {
      const endMs = performance.now() + seconds * 1000;
      while (performance.now() < endMs && !signal.aborted) {
        await timed(pool, quiet.key).then(
          (call) => into.add(call),
          () => into.failures++,
        );
        await pause(PAUSE_MS, signal);
      }
    };
    const begin = ({ path }: Flood): ChildProcess => {
      flooding = fork(
        join(import.meta.dirname, "flood-process.ts"),
        [admin.url, path, String(calls)],
        { execArgv: ["--disable-warning=ExperimentalWarning"] },
      );
      flooding.send(loud.key);
      return flooding;
    };
    for (const flood of floods) {
      onProgress(`warm-up: ${calls} calls at once, ${flood.isolation}`);
      const warming = begin(flood);
      await Promise.all([timed(pool, quiet.key), pause(WARM_UP_MS, signal)]);
      await end(warming);
    }
    for (let round = 1; round <= rounds && !signal.aborted; round++) {
      onProgress(`round ${round} of ${rounds}: alone, then beside ${calls} calls at once`);
      await measure(alone);
      for (const flood of floods) {
        const child = begin(flood);
        await pause(RISE_MS, signal);
        const before = await countsOf(child);
        const beganMs = performance.now();
        await measure(flood.beside);
        const after = await countsOf(child);
        flood.ms += performance.now() - beganMs;
        for (const key of ["answered", "refused", "failed"] as const)
          flood.total[key] += after[key] - before[key];
        await end(child);
      }
    }
    return {
      host: hostFacts(),
      calls,
      alone: alone.distribution,
      alone_phases: alone.phases,
      floods: floods.map((flood) => reportOf(flood, alone.distribution)),
    };
  } finally {
    if (flooding) await end(flooding);
    await pool.destroy();
    for (const { tenant } of guests)
      await admin.send("DELETE", `/admin/v1/tenants/${tenant}?force=true`).catch(() => {});
  }
}

function reportOf({ isolation, beside, total, ms }: Flood, alone: Distribution): FloodReport {
  const { distribution: b, phases, times } = beside;
  const meanMs = times.reduce((sum, one) => sum + one, 0) / Math.max(1, times.length);
  const rate = total.answered / Math.max(1, ms);
  return {
    isolation,
    beside: b,
    beside_phases: phases,
    p99_ratio: ratio(b.p99_ms, alone.p99_ms),
    p50_ratio: ratio(b.p50_ms, alone.p50_ms),
    flood: { ...total, rps: Math.round(rate * 1000) },
    flood_answers_per_quiet_call: Math.round(rate * meanMs * 10) / 10,
  };
}

/** Ends early when the run is to end. */
const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  setTimeout(ms, undefined, { signal }).catch(() => {});

const ratio = (a: number | null, b: number | null): number | null =>
  a === null || b === null ? null : Math.round((a / b) * 100) / 100;

const idSchema = z.object({ id: z.string() });
const keySchema = z.object({ key: z.string() });
const json = (body: object): RequestInit => ({
  body: JSON.stringify(body),
  headers: { "content-type": "application/json" },
});

/** A trusted tenant with a key, which no quota limits. */
async function guest(admin: Api, name: string): Promise<Guest> {
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
  return { tenant: id, key, api: new Api({ url: admin.url, key }) };
}

/** examples/hello, where it is wanted. */
async function deployHello({ api }: Guest, name: string, isolation: Path): Promise<void> {
  const files = { "index.mjs": readFileSync(join(PROJECT_ROOT, HELLO), "utf8") };
  const version = z.object({ version: z.number() });
  await api.json("POST", "/v1/functions", version, json({ name, isolation, files }));
}

/** Time of one call, ms, and what its answer tells of it; rejects unless it was served. */
async function timed(pool: Pool, key: string): Promise<Timed> {
  const beganMs = performance.now();
  const { statusCode, headers, body } = await pool.request({
    method: "GET",
    path: "/f/hello/",
    headers: { authorization: `Bearer ${key}` },
  });
  await body.dump();
  if (statusCode !== 200) throw new Error(`answered ${statusCode}`);
  const ms = performance.now() - beganMs;
  return { ms, timing: String(headers["server-timing"]) };
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
