import type { Server } from "node:http";
import { availableParallelism, cpus } from "node:os";
import type { Logger } from "pino";
import type { TraceSettings } from "#config/trace-environment";
import type { Path, VersionSpec } from "#contracts/function";
import { CHANGES_CHANNEL, type Change, type InvocationJob } from "#contracts/invocation";
import type { SandboxFilter } from "#contracts/live-sandbox";
import { lostRecord } from "#contracts/lost-record";
import type { TenantPolicy } from "#contracts/placement";
import { PLACEMENT_TABLE, type PlacementTable } from "#contracts/placement-table";
import type { RecordedUsage, SerializedRecord } from "#contracts/usage";
import { InvocationConsumer } from "#queue/invocation-consumer";
import { hearWatchers, publishLive } from "#queue/live";
import { type NodeHeartbeat, VERSIONS_TOLD } from "#queue/nodes";
import { answerPlacement } from "#queue/placement-asks";
import { Publisher, Subscriber } from "#queue/pubsub";
import { QuotaCounters } from "#queue/quota-counters";
import { connectRedis, disconnectRedis, type Redis } from "#queue/redis";
import { answerInquiries } from "#queue/sandbox-inquiry";
import { RecordJournal } from "#records/record-journal";
import { type RecordSink, RecordWriter } from "#records/record-writer";
import { openTracing } from "#telemetry/open-tracing";
import type { Tracing } from "#telemetry/tracing";
import { BundleCache } from "./bundles/bundle-cache.ts";
import { HouseKeeper } from "./housekeeping/house-keeper.ts";
import type { InvocationContext } from "./invoke/context.ts";
import { Invocation } from "./invoke/invocation.ts";
import { VersionCache } from "./invoke/version-cache.ts";
import { LiveFeed } from "./live/live-feed.ts";
import { serveMetrics, WorkerMetrics } from "./metrics.ts";
import { Heartbeat } from "./node/heartbeat.ts";
import { RecentlySeen } from "./node/recently-seen.ts";
import { nodeAnswer } from "./placement/node-answer.ts";
import { Placer } from "./placement/placer.ts";
import { PolicyCache } from "./placement/policy-cache.ts";
import { ForcedStarts } from "./pool/forced-starts.ts";
import type { PreparedTarget } from "./pool/prepared-cells.ts";
import { SandboxPool } from "./pool/sandbox-pool.ts";
import { MonthCounter } from "./records/month-counter.ts";
import { logsOf } from "./records/sandbox-logs.ts";
import { ReplyLinks } from "./reply/reply-links.ts";
import { RestoringLauncher, SandboxdLauncher } from "./sandbox/index.ts";
import { SnapshotKeeper } from "./snapshots/snapshot-keeper.ts";
import { type TenantState, TenantWatch } from "./tenants/tenant-watch.ts";

/** What the worker reads and writes; services/lib/db is behind it. */
export interface WorkerDatabase extends Pick<RecordSink, "insertLogs"> {
  /** Writes records and adds them to their tenants' usage, both or neither; gives what was added. */
  writeRecords(records: SerializedRecord[]): Promise<RecordedUsage[]>;
  /** GB-seconds of a tenant in a month such as `2026-11`. */
  readMonthTotals(month: string, tenantId: string): Promise<Map<string, number>>;
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
  /** Paths this node offers, of those its sandboxd can make; all when absent. */
  paths?: readonly Path[];
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
  /** Folder of the journal of records; without one, those of the last moments end with a killed worker. */
  recordsDir?: string;
  /** The built-in rules when absent. */
  placement?: PlacementTable;
}

/** Who has had work here within this time is counted in the heartbeat, ms. */
const SEEN_MS = 30_000;
/** Longer than a worker takes to come back, s. */
const CATCH_UP_S = 120;
const CPU_MODEL = (cpus()[0]?.model ?? "unknown").slice(0, 128);
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
  readonly #months: MonthCounter;
  readonly #metrics: WorkerMetrics;
  readonly #snapshots: SnapshotKeeper;
  readonly #house: HouseKeeper;
  #live: LiveFeed | undefined;
  #bundles: BundleCache | undefined;
  #pool: SandboxPool | undefined;
  #context: InvocationContext | undefined;
  #metricsServer: Server | undefined;
  #tracing: Tracing | undefined;
  readonly #heartbeat: Heartbeat;
  readonly #gateways = new RecentlySeen(SEEN_MS);
  readonly #tenants = new RecentlySeen(SEEN_MS);
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
    this.#consumer = new InvocationConsumer(settings.redisUrl, settings.nodeId, problem("queue"));
    this.#subscriber = new Subscriber(settings.redisUrl, problem("redis"));
    this.#heartbeat = new Heartbeat({
      redis: this.#redis,
      subscriber: this.#subscriber,
      nodeId: settings.nodeId,
      read: () => this.#heartbeatOf(),
      lost: (jobs) => this.#lost(jobs),
      onProblem: problem("heartbeat"),
    });
    this.#links = new ReplyLinks({
      nodeId: settings.nodeId,
      secret: settings.linkSecret,
      onProblem: problem("reply"),
      // What a caller has seen the end of has left its record.
      beforeSend: () => this.#records.secure(),
    });
    this.#publisher = new Publisher(this.#redis);
    this.#months = new MonthCounter({
      counters: new QuotaCounters(this.#redis),
      readMonthTotals: (month, tenantId) => database.readMonthTotals(month, tenantId),
      onProblem: problem("quota"),
    });
    this.#records = new RecordWriter({
      sink: {
        writeRecords: async (records) => this.#recorded(await database.writeRecords(records)),
        insertLogs: (entries) => database.insertLogs(entries),
      },
      ...(settings.recordsDir === undefined
        ? {}
        : {
            journal: new RecordJournal(settings.recordsDir, "worker", {
              onProblem: problem("journal"),
            }),
          }),
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
        if (!this.#draining) this.#consumer.resume();
        // A node that offers no micro-VMs has none kept ready.
        if (hello.ready && !this.#kinds()?.includes("microvm"))
          void this.#launcher.keepReady(0).catch(() => {});
        else if (hello.ready)
          this.#pool?.yields({
            each: hello.ready,
            // A sandboxd that is gone keeps none; the next one says how many it would.
            keep: (count) => void this.#launcher.keepReady(count).catch(() => {}),
          });
        this.#pool?.start();
        this.#heartbeat.changed();
      },
      onLost: (error) => {
        log.error({ err: error.message }, "sandboxd is lost; its sandboxes are gone");
        this.#sandboxdUp = Promise.withResolvers<void>();
        this.#restoring.clear();
        // Other nodes may have what waits; this one takes jobs again when sandboxd is back.
        this.#consumer.pause();
        this.#heartbeat.changed();
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
    const forced = new ForcedStarts({
      cold: this.#launcher,
      restoring: this.#restoring,
      bundles,
      reserve: (memoryMb) => pool.reserve(memoryMb),
      observe: (sandbox, spec) => sandbox.observe(logsOf(sandbox, spec, this.#records)),
    });
    const versions = new VersionCache((id) => database.readVersion(id));
    const policies = new PolicyCache((id) => database.policyOf(id));
    const placer = new Placer({
      table: settings.placement ?? PLACEMENT_TABLE,
      kinds: () => this.#kinds(),
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
    const live = new LiveFeed({
      nodeId: settings.nodeId,
      pool: () => this.#stats(),
      nameOf: (id) => versions.cached(id),
      publish: (batch) => void publishLive(this.#publisher, batch),
    });
    this.#live = live;
    this.#context = {
      ...(this.#tracing ? { tracing: this.#tracing } : {}),
      nodeId: settings.nodeId,
      pool,
      forced,
      links: this.#links,
      versions,
      policies,
      placer,
      records: {
        record: (record) => {
          this.#records.record(record);
          live.saw(record);
        },
        log: (entry) => this.#records.log(entry),
      },
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
    const restored = await this.#records.restore((records) => this.#months.takenOver(records));
    if (restored > 0) this.#log.info({ records: restored }, "took over records of a killed worker");
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
    hearWatchers(this.#subscriber, (forMs) => live.watched(forMs)).catch((error: Error) =>
      this.#log.warn({ err: error.message }, "cannot hear who watches"),
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
    await this.#consumer.start((job) => this.#serve(job), {
      concurrency: settings.concurrency,
      sated: () => pool.sated,
      lost: (calls) => this.#lost(calls),
    });
    if (!this.#launcher.hello) this.#consumer.pause();
    await this.#heartbeat.start();
    this.#house.start();
    this.#snapshots.start(() => this.#restoring.functions?.states() ?? []);
  }

  /** Takes no more jobs, finishes those that run within 30 s, ends all sandboxes and writes what is to be written. */
  async drain(): Promise<void> {
    if (this.#draining) return;
    this.#draining = true;
    // Gateways take back what no one has begun here.
    this.#heartbeat.changed();
    this.#snapshots.stop();
    this.#live?.stop();
    await this.#consumer.close(DRAIN_JOBS_MS);
    await this.#pool?.close(DRAIN_SANDBOXES_MS);
    this.#links.close();
    await this.#records.close(DRAIN_RECORDS_MS);
    this.#launcher.close();
    await this.#heartbeat.stop();
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

  /** Jobs that were taken and died with their worker, and maybe with the gateway that could have told of them. */
  #lost(jobs: readonly InvocationJob[]): void {
    for (const job of jobs)
      this.#records.record(lostRecord(job, "worker_lost", this.#settings.nodeId));
    this.#records.secure();
  }

  /** What a batch of records has added to the usage of tenants; it is in the database. */
  #recorded(usage: readonly RecordedUsage[]): void {
    this.#metrics.usage.add(usage);
    // Not waited for: without Redis, records are written all the same.
    void this.#months.recorded(usage);
  }

  async #serve(job: InvocationJob): Promise<void> {
    const context = this.#context as InvocationContext;
    this.#jobs.add(job);
    const nowMs = performance.now();
    const other = this.#gateways.mark(job.replyTo, nowMs);
    if (this.#tenants.mark(job.tenantId, nowMs) || other) this.#heartbeat.changed();
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

  /** What this node makes: what its sandboxd can and its settings allow; undefined while sandboxd cannot be reached. */
  #kinds(): readonly string[] | undefined {
    const { paths } = this.#settings;
    const kinds = this.#launcher.hello?.kinds;
    return paths ? kinds?.filter((kind) => (paths as readonly string[]).includes(kind)) : kinds;
  }

  #versionsWithSnapshot(): string[] {
    const found: string[] = [];
    for (const [spec, { state }] of this.#restoring.functions?.states() ?? [])
      if (state === "ready") found.push(spec.versionId);
    return found.slice(-VERSIONS_TOLD);
  }

  #heartbeatOf(): NodeHeartbeat {
    const { hello } = this.#launcher;
    const stats = this.#stats();
    const nowMs = performance.now();
    return {
      id: this.#settings.nodeId,
      pid: process.pid,
      atMs: Date.now(),
      startedAtMs: this.#startedAtMs,
      draining: this.#draining,
      sandboxd: hello !== undefined,
      kinds: [...(this.#kinds() ?? [])],
      images: hello?.images ?? {},
      ...(hello ? { cgroup: hello.cgroup } : {}),
      cpuModel: CPU_MODEL,
      processors: availableParallelism(),
      memoryMb: this.#settings.memoryMb,
      memoryReservedMb: stats.memoryReservedMb,
      invocations: this.#jobs.size,
      concurrency: this.#settings.concurrency,
      warm: stats.warm,
      busy: stats.busy,
      prepared: stats.prepared,
      warmVersions: this.#pool?.versions(VERSIONS_TOLD) ?? [],
      snapshotVersions: this.#versionsWithSnapshot(),
      gateways: this.#gateways.count(nowMs),
      tenants: this.#tenants.count(nowMs),
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
