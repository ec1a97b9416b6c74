import type { InvocationRecord } from "#contracts/invocation";
import {
  type Glance,
  type LiveBatch,
  type LiveSum,
  MOST_GLANCES,
  MOST_GLANCES_OF_ONE,
  MOST_SUMS,
  type PoolFigures,
} from "#contracts/live";

/** What happened leaves in batches this far apart, ms. */
const BATCH_MS = 250;
/** A node where nothing happens says so this often, ms. */
const QUIET_MS = 2000;

export interface LiveFeedOptions {
  nodeId: string;
  pool: () => PoolFigures;
  /** What the version is called, when it is in memory. */
  nameOf: (versionId: string) => { name: string; version: number } | undefined;
  publish: (batch: LiveBatch) => void;
}

/**
 * Tells those who watch which calls end. While nobody does, a call costs one comparison. While somebody does, all calls are summed and a few of
 * each batch are told one by one, so that a flood is no more to send than a trickle.
 */
export class LiveFeed {
  readonly #options: LiveFeedOptions;
  #timer: NodeJS.Timeout | undefined;
  #untilMs = 0;
  #sinceMs = 0;
  #toldMs = 0;
  #pool = "";
  #sums = new Map<string, LiveSum>();
  #calls: Glance[] = [];
  #ofTenant = new Map<string, number>();
  #uncounted = 0;

  constructor(options: LiveFeedOptions) {
    this.#options = options;
  }

  /** Somebody watches, for so long at least. */
  watched(forMs: number): void {
    const now = performance.now();
    this.#untilMs = Math.max(this.#untilMs, now + forMs);
    if (!this.#timer) {
      this.#sinceMs = now;
      this.#timer = setInterval(() => this.#tick(), BATCH_MS);
      this.#timer.unref();
    }
    this.#tell(now);
  }

  /** A call has ended. */
  saw(record: InvocationRecord): void {
    if (!this.#timer) return;
    this.#add(record);
    const one = this.#ofTenant.get(record.tenantId) ?? 0;
    if (this.#calls.length >= MOST_GLANCES || one >= MOST_GLANCES_OF_ONE) return;
    this.#ofTenant.set(record.tenantId, one + 1);
    this.#calls.push(glanceOf(record, this.#options.nameOf(record.versionId)));
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#forget();
  }

  #add({ tenantId, path, start, status, exits }: InvocationRecord): void {
    const key = `${tenantId} ${path} ${start}`;
    let sum = this.#sums.get(key);
    if (!sum) {
      if (this.#sums.size >= MOST_SUMS) {
        this.#uncounted++;
        return;
      }
      sum = {
        tenantId,
        ...(path ? { path } : {}),
        ...(start ? { start } : {}),
        ...{ calls: 0, failures: 0 },
      };
      this.#sums.set(key, sum);
    }
    sum.calls++;
    if (status !== "ok") sum.failures++;
    if (!exits) return;
    sum.exits ??= { syscall: 0, fault: 0, interrupted: 0, page_unavailable: 0 };
    sum.exits.syscall += exits.syscall;
    sum.exits.fault += exits.fault;
    sum.exits.interrupted += exits.interrupted;
    sum.exits.page_unavailable += exits.page_unavailable;
  }

  #tick(): void {
    const now = performance.now();
    if (now >= this.#untilMs) {
      this.stop();
      return;
    }
    const news = this.#sums.size > 0 || this.#uncounted > 0;
    const pool = JSON.stringify(this.#options.pool());
    if (news || pool !== this.#pool || now - this.#toldMs >= QUIET_MS) this.#tell(now);
  }

  #tell(now: number): void {
    const { nodeId, publish } = this.#options;
    const pool = this.#options.pool();
    publish({
      nodeId,
      atMs: Date.now(),
      spanMs: Math.round(now - this.#sinceMs),
      pool,
      sums: [...this.#sums.values()],
      calls: this.#calls,
      uncounted: this.#uncounted,
    });
    this.#pool = JSON.stringify(pool);
    this.#toldMs = now;
    this.#sinceMs = now;
    this.#forget();
  }

  #forget(): void {
    this.#sums = new Map();
    this.#calls = [];
    this.#ofTenant = new Map();
    this.#uncounted = 0;
  }
}

function glanceOf(
  record: InvocationRecord,
  of: { name: string; version: number } | undefined,
): Glance {
  const { id, tenantId, status, httpStatus, errorCode, path, start, phases, durationMs } = record;
  return {
    ...{ id, tenantId, status, durationMs },
    atMs: record.finishedAtMs,
    ...(of ? { function: of.name, version: of.version } : {}),
    ...(httpStatus === undefined ? {} : { httpStatus }),
    ...(errorCode === undefined ? {} : { errorCode }),
    ...(path ? { path } : {}),
    ...(start ? { start } : {}),
    ...(phases.queue_ms === undefined ? {} : { queueMs: phases.queue_ms }),
    ...(phases.acquire_ms === undefined ? {} : { bootMs: phases.acquire_ms }),
    ...(phases.handler_ms === undefined ? {} : { handlerMs: phases.handler_ms }),
  };
}
