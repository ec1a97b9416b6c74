import { existsSync, unlinkSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { Path } from "#contracts/function";
import type { RecordWriter } from "#records/record-writer";
import {
  Counter,
  createRegistry,
  DURATION_BUCKETS_SECONDS,
  Gauge,
  type Registry,
  spansCounter,
} from "#telemetry/metrics";
import { SeriesHistogram, SeriesTable } from "#telemetry/series-histogram";
import { UsageCounters } from "#telemetry/usage-counters";
import { FaasMetrics } from "./faas-metrics.ts";
import type { InvocationOutcome } from "./invoke/context.ts";
import { PathCounter } from "./path-counter.ts";
import type { PoolStats } from "./pool/sandbox-pool.ts";

/** Of Server-Timing, without those of the call itself. */
const PHASES = [
  "acquire",
  "create",
  "runtime",
  "restore",
  "renew",
  "reset",
  "assign",
  "init",
] as const;

export interface MetricSources {
  pool: () => PoolStats;
  /** Of the node, for all sandboxes. */
  memoryMb: number;
  records: RecordWriter;
  sandboxdUp: () => boolean;
}

/** What the worker counts. Labels are few and fixed: never a tenant's or a function's name. */
export class WorkerMetrics {
  readonly registry = createRegistry();
  readonly #faas = new FaasMetrics(this.registry);
  readonly #phase: SeriesTable<Path | "none", (typeof PHASES)[number] | "queue">;
  readonly #exits: PathCounter;
  readonly #calls: PathCounter;
  readonly #machineSeconds: PathCounter;
  readonly #pageFaults: Counter<"path">;
  readonly problems: Counter<"part">;
  readonly spans = spansCounter("worker", this.registry);
  readonly usage = new UsageCounters("worker", this.registry);

  constructor(sources: MetricSources) {
    const registers = [this.registry];
    const phase = new SeriesHistogram({
      name: "cloister_worker_phase_seconds",
      help: "Phases of starts that were not warm, and time in the queue of all; path is none where the call had no sandbox",
      buckets: DURATION_BUCKETS_SECONDS,
      registry: this.registry,
    });
    this.#phase = new SeriesTable(phase, "path", "phase");
    this.#exits = new PathCounter(
      "cloister_worker_machine_exits_total",
      "Exits of micro-VMs' virtual CPUs during invocations, by reason",
      "reason",
      this.registry,
    );
    this.#calls = new PathCounter(
      "cloister_worker_machine_calls_total",
      "System calls that micro-VMs' monitors served during invocations, by name",
      "name",
      this.registry,
    );
    this.#machineSeconds = new PathCounter(
      "cloister_worker_machine_seconds_total",
      "Time of micro-VMs during invocations, in guest code and in the monitor",
      "part",
      this.registry,
    );
    this.#pageFaults = new Counter({
      name: "cloister_worker_page_faults_total",
      help: "Pages given to sandboxes during invocations when they were touched",
      labelNames: ["path"],
      registers,
    });
    this.problems = new Counter({
      name: "cloister_worker_problems_total",
      help: "Troubles outside single invocations, by part",
      labelNames: ["part"],
      registers,
    });
    const sandboxes = new Gauge({
      name: "cloister_worker_sandboxes",
      help: "Sandboxes by what they do",
      labelNames: ["state"],
      registers,
      collect() {
        const { warm, busy, prepared, pooled, starting } = sources.pool();
        sandboxes.set({ state: "warm" }, warm);
        sandboxes.set({ state: "busy" }, busy);
        sandboxes.set({ state: "prepared" }, prepared);
        sandboxes.set({ state: "pooled" }, pooled);
        sandboxes.set({ state: "starting" }, starting);
      },
    });
    const waiting = new Gauge({
      name: "cloister_worker_waiting_invocations",
      help: "Invocations that wait for a sandbox, to be made or to become free, or in one behind others",
      registers,
      collect() {
        waiting.set(sources.pool().waiting);
      },
    });
    const memory = new Gauge({
      name: "cloister_worker_memory_reserved_bytes",
      help: "Memory promised to sandboxes",
      registers,
      collect() {
        memory.set(sources.pool().memoryReservedMb * 1024 * 1024);
      },
    });
    const limit = new Gauge({
      name: "cloister_worker_memory_limit_bytes",
      help: "Memory that may be promised to sandboxes",
      registers,
    });
    limit.set(sources.memoryMb * 1024 * 1024);
    const dropped = new Counter({
      name: "cloister_worker_dropped_rows_total",
      help: "Records and log lines lost because the database was away too long or refused them",
      labelNames: ["kind"],
      registers,
      collect() {
        const { records, logs } = sources.records.dropped;
        dropped.reset();
        dropped.inc({ kind: "records" }, records);
        dropped.inc({ kind: "logs" }, logs);
      },
    });
    const sandboxd = new Gauge({
      name: "cloister_worker_sandboxd_up",
      help: "1 while sandboxd can be reached",
      registers,
      collect() {
        sandboxd.set(sources.sandboxdUp() ? 1 : 0);
      },
    });
  }

  finished(outcome: InvocationOutcome): void {
    this.#faas.finished(outcome);
    if (outcome.path) this.#worked(outcome.path, outcome.work);
    const path = outcome.path ?? "none";
    const { queue_ms: queueMs } = outcome.phases;
    if (queueMs !== undefined) this.#phase.of(path, "queue").observe(queueMs / 1000);
    if (outcome.start === "warm") return;
    for (const phase of PHASES) {
      const ms = outcome.phases[`${phase}_ms`];
      if (ms !== undefined) this.#phase.of(path, phase).observe(ms / 1000);
    }
  }

  #worked(path: Path, work: InvocationOutcome["work"]): void {
    const { exits, syscalls, guestMs, monitorMs, pageFaults } = work;
    for (const reason in exits) this.#exits.add(path, reason, exits[reason as keyof typeof exits]);
    for (const name in syscalls) this.#calls.add(path, name, syscalls[name] ?? 0);
    if (guestMs !== undefined) this.#machineSeconds.add(path, "guest", guestMs / 1000);
    if (monitorMs !== undefined) this.#machineSeconds.add(path, "monitor", monitorMs / 1000);
    if (pageFaults !== undefined) this.#pageFaults.inc({ path }, pageFaults);
  }
}

export interface Health {
  ready: boolean;
  detail: Record<string, unknown>;
}

/** Serves /metrics and /healthz on a Unix socket's path or a port of 127.0.0.1. */
export async function serveMetrics(
  where: string,
  registry: Registry,
  health: () => Health,
): Promise<Server> {
  const server = createServer((request, response) => {
    const path = request.url?.split("?")[0];
    if (path === "/metrics") {
      registry.metrics().then(
        (text) => response.setHeader("content-type", registry.contentType).end(text),
        () => {
          response.statusCode = 500;
          response.end();
        },
      );
    } else if (path === "/healthz") {
      const { ready, detail } = health();
      response.statusCode = ready ? 200 : 503;
      response.setHeader("content-type", "application/json");
      response.end(`${JSON.stringify({ ready, ...detail })}\n`);
    } else {
      response.statusCode = 404;
      response.end();
    }
  });
  server.requestTimeout = 5000;
  const path = where.startsWith("unix:") ? where.slice("unix:".length) : where;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    if (path.startsWith("/")) {
      // Left by a worker that was killed; a live one would have been stopped by its supervisor first.
      if (existsSync(path)) unlinkSync(path);
      server.listen(path, resolve);
    } else {
      const port = Number(path.includes(":") ? path.slice(path.lastIndexOf(":") + 1) : path);
      if (!Number.isInteger(port) || port < 0 || port > 65_535)
        reject(new Error("CLOISTER_WORKER_METRICS must be a port, or the path of a Unix socket"));
      else server.listen(port, "127.0.0.1", resolve);
    }
  });
  return server;
}
