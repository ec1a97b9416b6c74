import type { Server } from "node:http";
import type { Logger } from "pino";
import type { TraceSettings } from "#config/trace-environment";
import type { VersionSpec } from "#contracts/function";
import { CHANGES_CHANNEL, type Change, type InvocationJob } from "#contracts/invocation";
import type { SandboxFilter } from "#contracts/live-sandbox";
import type { TenantPolicy } from "#contracts/placement";
import { PLACEMENT_TABLE, type PlacementTable } from "#contracts/placement-table";
import { InvocationConsumer } from "#queue/invocation-queue";
import { type NodeHeartbeat, removeHeartbeat, writeHeartbeat } from "#queue/nodes";
import { answerPlacement } from "#queue/placement-asks";
import { Publisher, Subscriber } from "#queue/pubsub";
import { connectRedis, disconnectRedis, type Redis } from "#queue/redis";
import { answerInquiries } from "#queue/sandbox-inquiry";
import { openTracing } from "#telemetry/open-tracing";
import type { Tracing } from "#telemetry/tracing";
import { BundleCache } from "./bundles/bundle-cache.ts";
import { HouseKeeper } from "./housekeeping/house-keeper.ts";
import type { InvocationContext } from "./invoke/context.ts";
import { Invocation } from "./invoke/invocation.ts";
import { VersionCache } from "./invoke/version-cache.ts";
import { serveMetrics, WorkerMetrics } from "./metrics.ts";
import { nodeAnswer } from "./placement/node-answer.ts";
import { Placer } from "./placement/placer.ts";
import { PolicyCache } from "./placement/policy-cache.ts";
import type { PreparedTarget } from "./pool/prepared-cells.ts";
import { SandboxPool } from "./pool/sandbox-pool.ts";
import { type RecordSink, RecordWriter } from "./records/record-writer.ts";
import { logsOf } from "./records/sandbox-logs.ts";
import { ReplyLinks } from "./reply/reply-links.ts";
import { RestoringLauncher, SandboxdLauncher } from "./sandbox/index.ts";
import { SnapshotKeeper } from "./snapshots/snapshot-keeper.ts";
import { type TenantState, TenantWatch } from "./tenants/tenant-watch.ts";

/** What the worker reads and writes; services/lib/db is behind it. */
export interface WorkerDatabase extends RecordSink {
  readVersion(versionId: string): Promise<VersionSpec | undefined>;
  readBundle(digest: string): Promise<Uint8Array | undefined>;
  /** Current versions that were published within the last `seconds`, newest first. */
  recentlyPublished(seconds: number): Promise<{ functionId: string; versionId: string }[]>;
  /** Rejects when there is no such tenant, or it is suspended. */
  policyOf(tenantId: string): Promise<TenantPolicy>;
  /** What these tenants are; those that are gone are left out. */
  tenantStates(ids: string[]): Promise<Map<string, TenantState>>;
  /** Makes the partitions to come and removes what is past its time; false when another worker is at it. */
  keepHouse(retentionDays: number): Promise<boolean>;
  close(): Promise<void>;
}

export interface WorkerSettings {
  nodeId: string;
  redisUrl: string;
  linkSecret: string;
  sandboxdSocket: string;
  bundlesDir: string;
  memoryMb: number;
  concurrency: number;
  idleMs: number;
  prepared: PreparedTarget[];
  /** Clones that wait for the calls of one version in demand; none when absent. */
  clonesPerFunction?: number;
  /** Turns of a runner's own code before a function is frozen; its default when absent. */
  warmTurns?: number;
  queueWaitMs: number;
  metrics?: string;
  /** Days that records and logs are kept. */
  retentionDays: number;
  /** Traces are off when absent. */
  traces?: TraceSettings;
  /** The built-in rules when absent. */
  placement?: PlacementTable;
}

const HEARTBEAT_MS = 3000;
/** Longer than a worker takes to come back, s. */
const CATCH_UP_S = 120;
/** Bounds of a drain, ms. */
const DRAIN_JOBS_MS = 30_000;
const DRAIN_SANDBOXES_MS = 10_000;
const DRAIN_RECORDS_MS = 5000;

/** One worker process: everything it is made of, started and drained in order. */
export class WorkerService {
  readonly #settings: WorkerSettings;
  readonly #database: WorkerDatabase;
  readonly #log: Logger;
  readonly #startedAtMs = Date.now();
  readonly #launcher: SandboxdLauncher;
  readonly #restoring: RestoringLauncher;
  readonly #consumer: InvocationConsumer;
  readonly #redis: Redis;
  readonly #publisher: Publisher;
  readonly #subscriber: Subscriber;
  readonly #links: ReplyLinks;
  readonly #records: RecordWriter;
  readonly #metrics: WorkerMetrics;
  readonly #snapshots: SnapshotKeeper;
  readonly #house: HouseKeeper;
  #bundles: BundleCache | undefined;
  #pool: SandboxPool | undefined;
  #context: InvocationContext | undefined;
  #metricsServer: Server | undefined;
  #tracing: Tracing | undefined;
  #heartbeat: NodeJS.Timeout | undefined;
  #sandboxdUp = Promise.withResolvers<void>();
  /** Those that this worker has taken and not ended. */
  readonly #jobs = new Set<InvocationJob>();
  #draining = false;

  constructor(settings: WorkerSettings, database: WorkerDatabase, log: Logger) {
    this.#settings = settings;
    this.#database = database;
    this.#log = log;
    const problem = (part: string) => (error: Error) => {
      this.#metrics.problems.inc({ part });
      log.warn({ part, err: error.message }, "trouble");
    };
    this.#redis = connectRedis(settings.redisUrl, "request", problem("redis"));
    this.#consumer = new InvocationConsumer(settings.redisUrl, problem("queue"));
    this.#subscriber = new Subscriber(settings.redisUrl, problem("redis"));
    this.#links = new ReplyLinks({
      nodeId: settings.nodeId,
      secret: settings.linkSecret,
      onProblem: problem("reply"),
    });
    this.#publisher = new Publisher(this.#redis);
    this.#records = new RecordWriter({
      sink: database,
      publish: (channel, message) => void this.#publisher.publish(channel, message),
      onProblem: problem("records"),
    });
    this.#launcher = new SandboxdLauncher({
      socketPath: settings.sandboxdSocket,
      onUp: (hello) => {
        log.info(
          { sandboxd: hello.pid, kinds: hello.kinds, cgroup: hello.cgroup },
          "sandboxd is up",
        );
        this.#sandboxdUp.resolve();
        if (!this.#draining) void this.#consumer.resume();
        if (hello.ready)
          this.#pool?.yields({
            each: hello.ready,
            // A sandboxd that is gone keeps none; the next one says how many it would.
            keep: (count) => void this.#launcher.keepReady(count).catch(() => {}),
          });
        this.#pool?.start();
      },
      onLost: (error) => {
        log.error({ err: error.message }, "sandboxd is lost; its sandboxes are gone");
        this.#sandboxdUp = Promise.withResolvers<void>();
        this.#restoring.clear();
        // Other nodes may have what waits; this one takes jobs again when sandboxd is back.
        void this.#consumer.pause();
      },
    });
    this.#snapshots = new SnapshotKeeper({
      nodeId: settings.nodeId,
      redis: this.#redis,
      records: this.#records,
      onProblem: problem("snapshots"),
    });
    this.#house = new HouseKeeper({
      keepHouse: () => database.keepHouse(settings.retentionDays),
      onProblem: problem("housekeeping"),
    });
    this.#restoring = new RestoringLauncher(this.#launcher, {
      onProblem: problem("snapshots"),
      functions: {
        hold: async (digest) => {
          if (!this.#bundles) throw new Error("The worker is starting");
          return this.#bundles.hold(digest);
        },
        reserve: (memoryMb) => this.#pool?.reserve(memoryMb),
        observe: (sandbox, spec) => sandbox.observe(logsOf(sandbox, spec, this.#records)),
        changed: (spec, state) => {
          this.#snapshots.changed(spec, state);
          if (state.state === "ready") this.#pool?.start();
        },
        ...(settings.warmTurns === undefined ? {} : { warmTurns: settings.warmTurns }),
      },
    });
    this.#metrics = new WorkerMetrics({
      pool: () => this.#stats(),
      memoryMb: settings.memoryMb,
      records: this.#records,
      sandboxdUp: () => this.#launcher.hello !== undefined,
    });
  }

  /** Resolves when jobs are being taken. Waits for Redis and sandboxd as long as it takes. */
  async start(): Promise<void> {
    const { settings, database } = { settings: this.#settings, database: this.#database };
    const bundles = await BundleCache.open({
      folder: settings.bundlesDir,
      read: (digest) => database.readBundle(digest),
    });
    this.#bundles = bundles;
    const pool = new SandboxPool({
      launcher: this.#restoring,
      bundles,
      memoryMb: settings.memoryMb,
      idleMs: settings.idleMs,
      prepared: settings.prepared,
      clonesPerFunction: settings.clonesPerFunction ?? 0,
      observe: (sandbox, spec) => sandbox.observe(logsOf(sandbox, spec, this.#records)),
      onProblem: (error) => {
        this.#metrics.problems.inc({ part: "pool" });
        this.#log.warn({ part: "pool", err: error.message }, "trouble");
      },
    });
    this.#pool = pool;
    const versions = new VersionCache((id) => database.readVersion(id));
    const policies = new PolicyCache((id) => database.policyOf(id));
    const placer = new Placer({
      table: settings.placement ?? PLACEMENT_TABLE,
      kinds: () => this.#launcher.hello?.kinds,
      starts: pool.starts,
    });
    this.#tracing = await openTracing(settings.traces, {
      component: "worker",
      instanceId: settings.nodeId,
      counted: (outcome, spans) => this.#metrics.spans.inc({ outcome }, spans),
      onProblem: (error) => {
        this.#metrics.problems.inc({ part: "traces" });
        this.#log.warn({ part: "traces", err: error.message }, "trouble");
      },
    });
    this.#context = {
      ...(this.#tracing ? { tracing: this.#tracing } : {}),
      nodeId: settings.nodeId,
      pool,
      links: this.#links,
      versions,
      policies,
      placer,
      records: this.#records,
      queueWaitMs: settings.queueWaitMs,
      finished: (outcome) => this.#metrics.finished(outcome),
      onProblem: (error) => {
        this.#metrics.problems.inc({ part: "invocation" });
        this.#log.error({ part: "invocation", err: error.message, stack: error.stack }, "trouble");
      },
    };
    if (settings.metrics)
      this.#metricsServer = await serveMetrics(settings.metrics, this.#metrics.registry, () => ({
        ready:
          !this.#draining && this.#launcher.hello !== undefined && this.#redis.status === "ready",
        detail: { ...this.#heartbeatOf() },
      }));
    this.#launcher.connectEventually();
    await this.#sandboxdUp.promise;
    pool.start();
    const heard = (change: Change): void =>
      void this.#snapshots.heard(change, {
        versions,
        policies,
        placer,
        functions: this.#restoring.functions,
      });
    answerPlacement(
      { publisher: new Publisher(this.#redis), subscriber: this.#subscriber },
      (ask) => nodeAnswer({ nodeId: settings.nodeId, placer, versions, policies }, ask),
      (error) => this.#log.warn({ part: "placement", err: error.message }, "trouble"),
    ).catch((error: Error) => this.#log.warn({ err: error.message }, "cannot hear questions"));
    // What was published while nobody listened here is heard late.
    const catchUp = (): void =>
      void database.recentlyPublished(CATCH_UP_S).then(
        (found) => {
          for (const { functionId, versionId } of found)
            heard({ kind: "function", id: functionId, versionId });
        },
        (error: Error) => this.#log.warn({ err: error.message }, "cannot hear what was missed"),
      );
    const tenants = new TenantWatch({
      policies,
      versions,
      pool,
      functions: this.#restoring.functions,
      statesOf: (ids) => database.tenantStates(ids),
    });
    this.#subscriber.onReconnect(() => {
      catchUp();
      tenants
        .catchUp()
        .catch((error: Error) =>
          this.#log.warn({ err: error.message }, "cannot hear what became of tenants"),
        );
    });
    this.#subscriber
      .subscribe(CHANGES_CHANNEL, (message) => {
        const change = message as Change;
        if (typeof change?.id !== "string") return;
        if (change.kind === "function") {
          pool.supersede(change.id, change.versionId);
          heard(change);
        } else if (change.kind === "tenant") tenants.heard(change);
      })
      .then(catchUp, (error: Error) =>
        this.#log.warn({ err: error.message }, "cannot hear changes"),
      );
    answerInquiries(
      { subscriber: this.#subscriber, publisher: this.#publisher },
      (filter, limit) => ({
        nodeId: settings.nodeId,
        running: countOf(this.#jobs, filter),
        ...pool.sandboxes(filter, limit),
      }),
    ).catch((error: Error) =>
      this.#log.warn({ err: error.message }, "cannot be asked for sandboxes"),
    );
    await this.#consumer.start((job) => this.#serve(job), { concurrency: settings.concurrency });
    if (!this.#launcher.hello) await this.#consumer.pause();
    await this.#beat();
    this.#heartbeat = setInterval(() => void this.#beat(), HEARTBEAT_MS);
    this.#house.start();
    this.#snapshots.start(() => this.#restoring.functions?.states() ?? []);
  }

  /** Takes no more jobs, finishes those that run within 30 s, ends all sandboxes and writes what is to be written. */
  async drain(): Promise<void> {
    if (this.#draining) return;
    this.#draining = true;
    clearInterval(this.#heartbeat);
    this.#snapshots.stop();
    const { nodeId } = this.#settings;
    await removeHeartbeat(this.#redis, nodeId).catch(() => {});
    await this.#consumer.close(DRAIN_JOBS_MS);
    await this.#pool?.close(DRAIN_SANDBOXES_MS);
    this.#links.close();
    await this.#records.close(DRAIN_RECORDS_MS);
    this.#launcher.close();
    this.#metricsServer?.close();
    this.#metricsServer?.closeAllConnections();
    await Promise.all([
      this.#tracing?.close(),
      this.#subscriber.close(),
      disconnectRedis(this.#redis),
      this.#house
        .stop()
        .then(() => this.#database.close())
        .catch(() => {}),
    ]);
  }

  async #serve(job: InvocationJob): Promise<void> {
    const context = this.#context as InvocationContext;
    this.#jobs.add(job);
    try {
      if (!this.#launcher.hello) await this.#untilSandboxd(job.expiresAtMs - Date.now());
      await new Invocation(context, job).run();
    } finally {
      this.#jobs.delete(job);
    }
  }

  /** A job taken just before sandboxd was lost waits for it to come back, as long as its caller does. */
  async #untilSandboxd(boundMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const bound = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, Math.max(0, Math.min(boundMs, this.#settings.queueWaitMs)));
    });
    await Promise.race([this.#sandboxdUp.promise, bound]);
    clearTimeout(timer);
  }

  #stats() {
    return (
      this.#pool?.stats() ?? {
        warm: 0,
        busy: 0,
        prepared: 0,
        pooled: 0,
        starting: 0,
        waiting: 0,
        memoryReservedMb: 0,
      }
    );
  }

  async #beat(): Promise<void> {
    try {
      await writeHeartbeat(this.#redis, this.#heartbeatOf());
    } catch (error) {
      this.#metrics.problems.inc({ part: "heartbeat" });
      this.#log.debug({ err: (error as Error).message }, "heartbeat not written");
    }
  }

  #heartbeatOf(): NodeHeartbeat {
    const { hello } = this.#launcher;
    const stats = this.#stats();
    return {
      id: this.#settings.nodeId,
      pid: process.pid,
      atMs: Date.now(),
      startedAtMs: this.#startedAtMs,
      draining: this.#draining,
      sandboxd: hello !== undefined,
      kinds: hello?.kinds ?? [],
      images: hello?.images ?? {},
      ...(hello ? { cgroup: hello.cgroup } : {}),
      memoryMb: this.#settings.memoryMb,
      memoryReservedMb: stats.memoryReservedMb,
      invocations: this.#jobs.size,
      concurrency: this.#settings.concurrency,
      warm: stats.warm,
      busy: stats.busy,
      prepared: stats.prepared,
    };
  }
}

function countOf(jobs: Iterable<InvocationJob>, { tenantId, functionId }: SandboxFilter): number {
  let count = 0;
  for (const job of jobs)
    if (
      (tenantId === undefined || job.tenantId === tenantId) &&
      (functionId === undefined || job.functionId === functionId)
    )
      count++;
  return count;
}
