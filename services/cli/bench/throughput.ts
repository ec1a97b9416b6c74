import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Pool } from "undici";
import type { Path } from "#contracts/function";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { distribution } from "#report/statistics";
import { deploy } from "../commands/deploy.ts";
import { EXIT, Failure, messageOf } from "../failure.ts";
import { type HostFacts, hostFacts } from "../host/facts.ts";
import { type Credentials, readCredentials } from "../http/api.ts";
import { foldersOf } from "../instance/folders.ts";
import { freePort, Instance } from "../instance/instance.ts";
import { callers } from "./closed-model.ts";
import { type Arrivals, arrive } from "./open-model.ts";
import { perRequest, processTimes } from "./process-time.ts";
import { smallAnswer } from "./small-answer.ts";

/** Paths take turns of this length, so that both meet the same weather, s. */
const TURN_S = 2;
const CONNECTIONS = 100;
/** Under way at once at most; what is due beyond is dropped. */
const MOST_AT_ONCE = 400;
const NAME = "cloister-bench";

export interface ThroughputReport {
  host: HostFacts;
  /** One of the two. */
  ratePerSecond?: number;
  callers?: number;
  turnSeconds: number;
  warmUpSeconds: number;
  paths: PathThroughput[];
}

export interface PathThroughput {
  path: Path;
  /** The start of most answers; `starts` counts all. */
  start: string;
  available: boolean;
  reason?: string;
  requests: number;
  failures: number;
  /** Were due and never sent. */
  dropped: number;
  /** Right answers a second. */
  rps: number;
  p50_ms: number | null;
  p90_ms: number | null;
  p99_ms: number | null;
  max_ms: number | null;
  /** What the slowest hundredth wait beside the middle. */
  p99_to_p50: number | null;
  /** From the worker's call of the sandbox to the head of its answer, as `Server-Timing` tells of the same requests. */
  sandbox_p50_ms: number | null;
  /** What is left of a request's time: HTTP, checks, queue, worker, record. */
  beyond_p50_ms: number | null;
  starts: Record<string, number>;
  /** Processor time for each request, µs, by part of the service; only of a service on this machine. */
  cpu_us: Record<string, number>;
  firstFailure?: string;
}

/** Requests that are due at a rate, or callers who ask again when they have their answers. */
export type Load = { ratePerSecond: number } | { callers: number };

export interface ThroughputOptions {
  seconds: number;
  /** Of each path, before anything counts: connections open, sandboxes become as many as are needed, and services and sandboxes compile their code. */
  warmUpSeconds: number;
  load: Load;
  paths: readonly Path[];
  /** A service that runs; one of its own when absent. */
  dataDir?: string;
  signal: AbortSignal;
  onProgress(text: string): void;
}

/** Warm calls of examples/hello through HTTP and the queue: at a constant rate that nobody's slowness changes, or by callers who wait for their answers. */
export async function benchThroughput(options: ThroughputOptions): Promise<ThroughputReport> {
  const service = await serviceFor(options);
  const pool = new Pool(service.credentials.url, {
    connections: "callers" in options.load ? options.load.callers : CONNECTIONS,
  });
  try {
    const paths = options.paths.map((path) => new Measured(path, service, pool));
    for (const path of paths) await path.prepare();
    const turns = Math.max(1, Math.ceil(options.seconds / TURN_S));
    const warmUpTurns = Math.ceil(options.warmUpSeconds / TURN_S);
    for (let turn = 0; turn < turns + warmUpTurns && !options.signal.aborted; turn++)
      for (let index = 0; index < paths.length; index++) {
        const one = paths[(index + turn) % paths.length] as Measured;
        if (one.reason !== undefined || options.signal.aborted) continue;
        const counts = turn >= warmUpTurns;
        options.onProgress(
          counts
            ? `turn ${turn - warmUpTurns + 1} of ${turns}: ${one.path}`
            : `warm-up, turn ${turn + 1} of ${warmUpTurns}: ${one.path}`,
        );
        const left = counts
          ? options.seconds - (turn - warmUpTurns) * TURN_S
          : options.warmUpSeconds - turn * TURN_S;
        await one.turn(options, Math.min(TURN_S, left), counts);
      }
    return {
      host: hostFacts(),
      ...options.load,
      turnSeconds: TURN_S,
      warmUpSeconds: options.warmUpSeconds,
      paths: paths.map((one) => one.report()),
    };
  } finally {
    await pool.destroy();
    await service.stop();
  }
}

interface Service {
  credentials: Credentials;
  /** Where its processes are named. */
  stateFile: string;
  stop(): Promise<void>;
}

async function serviceFor({ dataDir, signal, onProgress }: ThroughputOptions): Promise<Service> {
  const folder = join(PROJECT_ROOT, "examples/hello");
  const running = dataDir !== undefined || process.env.CLOISTER_URL !== undefined;
  if (running) {
    await deploy(folder, { ...(dataDir === undefined ? {} : { dataDir }), name: NAME });
    const { stateFile } = foldersOf(dataDir);
    return { credentials: readCredentials(dataDir), stateFile, stop: async () => {} };
  }
  const data = mkdtempSync(join(tmpdir(), "cloister-bench-"));
  const instance = await Instance.open({ data, port: await freePort(), tell: onProgress });
  const kill = (): void => instance.kill();
  signal.addEventListener("abort", kill, { once: true });
  const stop = async (): Promise<void> => {
    await instance.stop();
    rmSync(data, { recursive: true, force: true });
  };
  try {
    onProgress("starting a service of its own");
    await instance.start();
    await deploy(folder, { dataDir: data, name: NAME });
  } catch (error) {
    await stop();
    if (signal.aborted)
      throw new Failure("The benchmark was interrupted.", "Run it again.", EXIT.interrupted);
    throw error instanceof Failure
      ? error
      : new Failure(`The service cannot start: ${messageOf(error)}`, "Run ./cloister doctor.");
  }
  signal.removeEventListener("abort", kill);
  return { credentials: readCredentials(data), stateFile: instance.folders.stateFile, stop };
}

interface Answer {
  status: number;
  text: string;
  start: string;
  /** What the sandbox itself took, ms. */
  sandboxMs: number | undefined;
}

const HANDLER = /(?:^|, )handler;dur=([\d.]+)/;

class Measured {
  readonly path: Path;
  /** Why the path cannot be had. */
  reason: string | undefined;
  readonly #service: Service;
  readonly #pool: Pool;
  readonly #times: number[] = [];
  readonly #sandbox: number[] = [];
  readonly #beyond: number[] = [];
  readonly #failures: string[] = [];
  readonly #starts: Record<string, number> = {};
  readonly #cpuMs: Record<string, number> = {};
  #dropped = 0;
  #seconds = 0;
  #counts = false;

  constructor(path: Path, service: Service, pool: Pool) {
    this.path = path;
    this.#service = service;
    this.#pool = pool;
  }

  /** Has the first sandbox, and learns whether the path is to be had. */
  async prepare(): Promise<void> {
    const { status, text } = await this.#ask();
    if (status === 503 || status === 403) this.reason = text.slice(0, 300);
  }

  async turn({ load, signal }: ThroughputOptions, seconds: number, counts: boolean): Promise<void> {
    this.#counts = counts;
    const before = processTimes(this.#service.stateFile);
    const send = async (): Promise<void> => {
      const askedMs = performance.now();
      const { status, text, start, sandboxMs } = await this.#ask();
      const tookMs = performance.now() - askedMs;
      if (status !== 200 || !text.includes("Hello, bench!"))
        throw new Error(`answered ${status} ${text.slice(0, 200)}`);
      if (!this.#counts) return;
      this.#starts[start] = (this.#starts[start] ?? 0) + 1;
      if (sandboxMs === undefined) return;
      this.#sandbox.push(sandboxMs);
      this.#beyond.push(tookMs - sandboxMs);
    };
    const found: Arrivals = await ("callers" in load
      ? callers({ ...load, seconds, signal }, send)
      : arrive({ ...load, seconds, mostAtOnce: MOST_AT_ONCE, signal }, send));
    if (!counts) return;
    for (const ms of found.times) this.#times.push(ms);
    for (const failure of found.failures) this.#failures.push(failure);
    this.#dropped += found.dropped;
    this.#seconds += found.seconds;
    const after = processTimes(this.#service.stateFile);
    for (const [part, ms] of Object.entries(after))
      this.#cpuMs[part] = (this.#cpuMs[part] ?? 0) + Math.max(0, ms - (before[part] ?? 0));
  }

  async #ask(): Promise<Answer> {
    const { status, headers, text } = await smallAnswer(this.#pool, {
      path: `/f/${NAME}/?name=bench`,
      method: "GET",
      headers: {
        authorization: `Bearer ${this.#service.credentials.key}`,
        "cloister-isolation": this.path,
      },
    });
    const timing = HANDLER.exec(String(headers["server-timing"] ?? ""));
    return {
      status,
      text,
      start: String(headers["cloister-start"] ?? "-"),
      sandboxMs: timing ? Number(timing[1]) : undefined,
    };
  }

  report(): PathThroughput {
    const { p50_ms, p90_ms, p99_ms, max_ms } = distribution(this.#times, 0);
    const requests = this.#times.length + this.#failures.length;
    const [first] = this.#failures;
    const starts = Object.entries(this.#starts).sort(([, a], [, b]) => b - a);
    return {
      path: this.path,
      start: starts[0]?.[0] ?? "-",
      available: this.reason === undefined,
      ...(this.reason === undefined ? {} : { reason: this.reason }),
      requests,
      failures: this.#failures.length,
      dropped: this.#dropped,
      rps: this.#seconds > 0 ? Math.round((this.#times.length / this.#seconds) * 10) / 10 : 0,
      p50_ms,
      p90_ms,
      p99_ms,
      max_ms,
      sandbox_p50_ms: distribution(this.#sandbox, 0).p50_ms,
      beyond_p50_ms: distribution(this.#beyond, 0).p50_ms,
      p99_to_p50: p99_ms !== null && p50_ms ? Math.round((p99_ms / p50_ms) * 100) / 100 : null,
      starts: Object.fromEntries(starts),
      cpu_us: requests > 0 ? perRequest({}, this.#cpuMs, requests) : {},
      ...(first === undefined ? {} : { firstFailure: first }),
    };
  }
}
