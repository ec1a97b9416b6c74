import { randomUUID } from "node:crypto";
import type { Server } from "node:http";
import { getRequestListener } from "@hono/node-server";
import { RefreshingCache } from "#cache/refreshing-cache";
import type { TraceSettings } from "#config/trace-environment";
import { CHANGES_CHANNEL, type Change } from "#contracts/invocation";
import { lostRecord } from "#contracts/lost-record";
import { PlacementEngine } from "#contracts/placement-engine";
import { PLACEMENT_TABLE, type PlacementTable } from "#contracts/placement-table";
import { type Database, openDatabase } from "#db/database";
import { resolveFunction } from "#db/functions";
import { writeRecords } from "#db/invocations";
import { readKey, touchKeys } from "#db/keys";
import { DEFAULT_TENANT, type Tenant, tenantByName } from "#db/tenants";
import { readMonthTotals } from "#db/usage";
import { CloisterError } from "#errors/catalogue";
import { InvocationProducer } from "#queue/invocation-producer";
import { NODE_ASKED_CHANNEL, NODES_CHANNEL, readNodes } from "#queue/nodes";
import { Publisher, Subscriber } from "#queue/pubsub";
import { QuotaCounters } from "#queue/quota-counters";
import { RecordJournal } from "#records/record-journal";
import { RecordWriter } from "#records/record-writer";
import type { Logger } from "#telemetry/log";
import { openTracing } from "#telemetry/open-tracing";
import type { Tracing } from "#telemetry/tracing";
import { createApp } from "./app.ts";
import { Authenticator } from "./auth/authenticator.ts";
import type { BacklogLimits } from "./dispatch/backlog.ts";
import { Dispatcher } from "./dispatch/dispatcher.ts";
import { LiveNodes } from "./dispatch/live-nodes.ts";
import type { GatewayContext } from "./gateway-context.ts";
import type { CallContext, OpenCall } from "./invoke/call-context.ts";
import { Calls, type TakenCall } from "./invoke/calls.ts";
import { FunctionResolver } from "./invoke/function-resolver.ts";
import { Invoker } from "./invoke/invoker.ts";
import { LostJobs } from "./invoke/lost-jobs.ts";
import { GatewayMetrics } from "./metrics.ts";
import { requestProblem } from "./middleware/problems.ts";
import { Admissions } from "./quota/admissions.ts";
import { RefusalPace } from "./quota/refusal-pace.ts";
import { ReplyServer } from "./reply/reply-server.ts";
import { createGatewayServer } from "./server.ts";

export interface GatewaySettings {
  databaseUrl: string;
  redisUrl: string;
  /** host:port of HTTP. */
  listen: string;
  /** Where users find it, e.g. https://functions.example; default: what `listen` says. */
  publicUrl?: string;
  replyListen: string;
  linkSecret: string;
  queueWaitMs: number;
  /** The built-in rules when absent. */
  placement?: PlacementTable;
  /** Folder of the journal of records; without one, those of the last moments end with a killed gateway. */
  recordsDir?: string;
  /** Bounds of what waits in this gateway; `DEFAULT_BACKLOG` when absent. */
  backlog?: Partial<BacklogLimits>;
  /** Longest a drain waits for calls under way, ms. */
  drainMs?: number;
  /** How long calls at once of a gateway that died still count, ms. */
  quotaLeaseMs?: number;
  /** Traces are off when absent. */
  traces?: TraceSettings;
}

/** Below the 45 s after which `cloister up` kills. */
const DRAIN_MS = 30_000;
const DATABASE_CONNECTIONS = 10;
const DRAIN_RECORDS_MS = 5000;
/** The node of records that no worker wrote. */
const NODE = "gateway";
const DEFAULT_BACKLOG: BacklogLimits = {
  calls: 10_000,
  callsOfTenant: 2000,
  bytes: 256 << 20,
  bytesOfTenant: 64 << 20,
};

/** One gateway process: everything it is made of, started and drained in order. */
export class GatewayService {
  readonly #settings: GatewaySettings;
  readonly #log: Logger;
  readonly #db: Database;
  readonly #producer: InvocationProducer;
  readonly #publisher: Publisher;
  readonly #subscriber: Subscriber;
  readonly #authenticator: Authenticator;
  readonly #functions: FunctionResolver;
  readonly #tenants: RefreshingCache<Tenant>;
  readonly #counters: QuotaCounters;
  readonly #admissions: Admissions;
  readonly #metrics: GatewayMetrics;
  readonly #calls: Calls<TakenCall>;
  readonly #open = new Set<OpenCall>();
  readonly #lostJobs: LostJobs;
  readonly #records: RecordWriter;
  readonly #reply: ReplyServer;
  readonly #placement: PlacementEngine;
  readonly #nodes: LiveNodes;
  readonly #dispatcher: Dispatcher;
  readonly #drain = new AbortController();
  #server: Server | undefined;
  #tracing: Tracing | undefined;
  #idle: (() => void) | undefined;

  constructor(settings: GatewaySettings, log: Logger) {
    this.#settings = settings;
    this.#log = log;
    const problem = (part: string) => (error: Error) => {
      this.#metrics.problems.inc({ part });
      log.warn({ part, err: error.message }, "trouble");
    };
    this.#metrics = new GatewayMetrics({
      open: () => this.#open.size,
      waiting: () => this.#calls.size,
      workers: () => this.#reply.links,
      nodes: () => this.#nodes.usable,
      held: () => this.#dispatcher.waiting,
    });
    this.#db = openDatabase(settings.databaseUrl, {
      connections: DATABASE_CONNECTIONS,
      onError: problem("database"),
    });
    this.#producer = new InvocationProducer(settings.redisUrl, problem("queue"));
    this.#publisher = new Publisher(this.#producer.redis);
    this.#subscriber = new Subscriber(settings.redisUrl, problem("redis"));
    this.#counters = new QuotaCounters(this.#producer.redis, settings.quotaLeaseMs);
    this.#admissions = new Admissions({
      counters: this.#counters,
      readMonthTotal: this.#readMonthTotal,
      onProblem: problem("quota"),
    });
    this.#authenticator = new Authenticator({
      readKey: (id) => readKey(this.#db, id),
      touchKeys: (used) => touchKeys(this.#db, used),
      onProblem: problem("keys"),
    });
    this.#functions = new FunctionResolver({
      resolve: (tenantId, name, version) => resolveFunction(this.#db, tenantId, name, version),
      onProblem: problem("functions"),
    });
    this.#tenants = new RefreshingCache({
      load: (name) => tenantByName(this.#db, name),
      freshMs: 5000,
      aheadMs: 1000,
      absentMs: 1000,
      staleMs: 300_000,
      maxEntries: 10,
      onProblem: problem("tenants"),
    });
    this.#placement = new PlacementEngine(settings.placement ?? PLACEMENT_TABLE);
    this.#records = new RecordWriter({
      sink: {
        writeRecords: async (records) =>
          this.#metrics.usage.add(await writeRecords(this.#db, records)),
        insertLogs: async () => {},
      },
      ...(settings.recordsDir === undefined
        ? {}
        : {
            journal: new RecordJournal(settings.recordsDir, "gateway", {
              onProblem: problem("journal"),
            }),
          }),
      onProblem: problem("records"),
    });
    this.#calls = new Calls(settings.queueWaitMs);
    this.#lostJobs = new LostJobs(this.#calls);
    this.#nodes = new LiveNodes({
      read: () => readNodes(this.#producer.redis),
      ask: (id, question) => void this.#publisher.publish(NODE_ASKED_CHANNEL, { id, question }),
      changed: () => this.#dispatcher.changed(),
      lost: (id) => {
        void this.#dispatcher.lost(id);
        this.#lostJobs.workerLost();
      },
      left: (id) => {
        log.info({ node: id }, "a node is gone");
        this.#dispatcher.left(id);
      },
      told: (node) => this.#dispatcher.told(node),
      onProblem: problem("nodes"),
    });
    this.#dispatcher = new Dispatcher({
      producer: this.#producer,
      nodes: this.#nodes,
      limits: { ...DEFAULT_BACKLOG, ...settings.backlog },
      placement: this.#placement,
    });
    this.#reply = new ReplyServer({
      address: settings.replyListen,
      secret: settings.linkSecret,
      attach: (invocation, link, streamId) => {
        const call = this.#calls.get(invocation);
        if (!call) return false;
        call.attach(link, streamId);
        return true;
      },
      lost: (worker, error) => {
        log.info({ worker, err: error?.message }, "a worker's link has closed");
        this.#lostJobs.workerLost();
        this.#nodes.suspect(worker);
      },
      onProblem: problem("reply"),
    });
  }

  /** Resolves with the URL it serves at. Waits for neither PostgreSQL nor Redis: /readyz tells of them. */
  async start(): Promise<string> {
    const { listen, queueWaitMs } = this.#settings;
    this.#tracing = await openTracing(this.#settings.traces, {
      component: "gateway",
      instanceId: randomUUID(),
      counted: (outcome, spans) => this.#metrics.spans.inc({ outcome }, spans),
      onProblem: (error) => {
        this.#metrics.problems.inc({ part: "traces" });
        this.#log.warn({ part: "traces", err: error.message }, "trouble");
      },
    });
    const replyTo = await this.#reply.listen();
    this.#hearChanges();
    const restored = await this.#records.restore();
    if (restored > 0)
      this.#log.info({ records: restored }, "took over records of a killed gateway");
    const match = /^(.+):(\d{1,5})$/.exec(listen);
    if (!match) throw new Error("CLOISTER_LISTEN must be host:port, e.g. 127.0.0.1:8080");
    const host = (match[1] ?? "").replace(/^\[|\]$/g, "");
    const draining = (): boolean => this.#drain.signal.aborted;
    const onProblem = (error: Error): void => {
      this.#metrics.problems.inc({ part: "request" });
      this.#log.error({ part: "request", err: error.message, stack: error.stack }, "trouble");
    };
    const publicUrl = (this.#settings.publicUrl ?? `http://${listen}`).replace(/\/+$/, "");
    const context: CallContext = {
      calls: this.#calls,
      dispatcher: this.#dispatcher,
      admissions: this.#admissions,
      refusals: new RefusalPace(),
      replyTo,
      queueWaitMs,
      draining,
      opened: (call) => this.#open.add(call),
      closed: (call, outcome) => {
        this.#open.delete(call);
        this.#metrics.invoked(outcome);
        if (this.#open.size === 0) this.#idle?.();
      },
      lost: (call, code) => {
        this.#records.record(lostRecord(call, code, NODE));
        // The caller learns of it only afterwards.
        this.#records.secure();
      },
      onProblem,
      ...(this.#tracing ? { tracing: this.#tracing } : {}),
    };
    const gateway: GatewayContext = {
      db: this.#db,
      producer: this.#producer,
      subscriber: this.#subscriber,
      counters: this.#counters,
      readMonthTotal: this.#readMonthTotal,
      authenticator: this.#authenticator,
      metrics: this.#metrics,
      sessionSecret: this.#settings.linkSecret,
      placement: this.#placement,
      publicUrl,
      draining,
      drained: this.#drain.signal,
      changed: async (change) => {
        this.#apply(change);
        await this.#publisher.publish(CHANGES_CHANNEL, change);
      },
      onProblem,
      calls: context,
    };
    const invoker = new Invoker({
      context,
      authenticator: this.#authenticator,
      functions: this.#functions,
      publicTenant: () => this.#tenants.get(DEFAULT_TENANT),
      scheme: publicUrl.startsWith("https:") ? "https" : "http",
    });
    const app = createApp(gateway);
    const api = getRequestListener(app.fetch, {
      overrideGlobalObjects: false,
      // HTTP/1.0 clients, such as health checks, name no host.
      hostname: "localhost",
      errorHandler: (error) => requestProblem(error, onProblem),
    });
    const server = createGatewayServer(invoker, api);
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host, port: Number(match[2]) }, resolve);
    });
    server.on("error", onProblem);
    const address = server.address();
    const port = typeof address === "object" && address ? address.port : Number(match[2]);
    return `http://${host.includes(":") ? `[${host}]` : host}:${port}`;
  }

  /** Takes no more calls, lets those that run end within the bound, and closes everything. */
  async drain(): Promise<void> {
    if (this.#drain.signal.aborted) return;
    this.#drain.abort();
    const server = this.#server;
    const closed = new Promise<void>((resolve) => {
      if (server) server.close(() => resolve());
      else resolve();
    });
    server?.closeIdleConnections();
    await this.#untilIdle(this.#settings.drainMs ?? DRAIN_MS);
    for (const call of [...this.#open]) call.fail(new CloisterError("draining"));
    // Answers that are whole may still be on their way; what has not left soon never will.
    const bound = setTimeout(() => server?.closeAllConnections(), 2000);
    server?.closeIdleConnections();
    await closed;
    clearTimeout(bound);
    this.#calls.close();
    this.#nodes.close();
    this.#dispatcher.close();
    this.#admissions.close();
    this.#reply.close();
    await this.#authenticator.close();
    await Promise.all([this.#tracing?.close(), this.#subscriber.close(), this.#producer.close()]);
    await this.#records.close(DRAIN_RECORDS_MS);
    await this.#db.close().catch(() => {});
  }

  readonly #readMonthTotal = (tenantId: string, month: string): Promise<number> =>
    readMonthTotals(this.#db, month, tenantId).then((totals) => totals.get(tenantId) ?? 0);

  async #untilIdle(boundMs: number): Promise<void> {
    if (this.#open.size === 0) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
      timer = setTimeout(resolve, boundMs);
    });
    clearTimeout(timer);
  }

  #apply(change: Change): void {
    if (change.kind === "function") this.#functions.drop(change.id);
    else this.#authenticator.drop(change.kind, change.id);
    if (change.kind === "tenant") {
      this.#tenants.expire();
      // Its quota, its tier: what its calls are held to is kept with the functions.
      this.#functions.dropTenant(change.id);
    }
  }

  #hearChanges(): void {
    this.#subscriber
      .subscribe(CHANGES_CHANNEL, (message) => {
        const change = message as Partial<Change> | null;
        if (typeof change?.id !== "string") return;
        if (change.kind === "function" || change.kind === "key" || change.kind === "tenant")
          this.#apply({ kind: change.kind, id: change.id });
      })
      .catch((error: Error) => this.#log.warn({ err: error.message }, "cannot hear changes"));
    this.#subscriber
      .subscribe(NODES_CHANNEL, (message) => this.#nodes.hear(message))
      .then(() => this.#nodes.refresh())
      .catch((error: Error) => this.#log.warn({ err: error.message }, "cannot hear nodes"));
    // What was published during an outage is lost, and so may be jobs.
    this.#subscriber.onReconnect(() => {
      this.#nodes.reconnected();
      this.#functions.expire();
      this.#authenticator.expire();
      this.#admissions.reconnected();
      this.#lostJobs.queueLost();
    });
  }
}
