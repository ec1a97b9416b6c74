import type { JobsOptions } from "bullmq";
import type { Redis } from "ioredis";
import type { InvocationJob } from "#contracts/invocation";
import { Batching } from "./batching.ts";
import { batchId, JOB_NAME, type NodeQueue } from "./node-queue.ts";
import { leaveSoon } from "./redis.ts";

export type JobState = "waiting" | "active" | "gone";

/** Bounds of a job; a worker may take one job more than it has places for, so this is also how many too many it may get. */
export const BATCH = { items: 16, bytes: 256 * 1024 } as const;

/** Longest wait for a worker to take a job before the next one leaves, ms: it may have been lost, or take none for a while. */
const TAKING_MS = 25;

export interface OutboxOptions {
  redis: Redis;
  /** The queue of the node, opened if it is not open. */
  queue: () => NodeQueue;
  isOpen: () => boolean;
  onError: (error: Error) => void;
}

/** The way of a gateway's invocations to one node: some of them together are one job of its queue (docs/adr/0003-batches.md). */
export class Outbox {
  readonly #options: OutboxOptions;
  readonly #batching: Batching<QueuedCall>;
  #crowded = false;

  constructor(options: OutboxOptions) {
    this.#options = options;
    this.#batching = new Batching(
      BATCH,
      (calls) => this.#send(new Batch(this, calls)),
      (calls, error) => {
        for (const call of calls) call.notQueued(error);
      },
    );
  }

  /**
   * `notQueued` hears when Redis has not taken it in a few seconds; it may then still be in the queue. `crowded` tells that the node has calls enough
   * that wait: this one wins nothing by being there before the worker has taken those that are on their way.
   */
  add(job: InvocationJob, notQueued: (error: Error) => void, crowded: boolean): QueuedCall {
    this.#crowded = crowded;
    const call = new QueuedCall(this, job, notQueued);
    this.#batching.add(call, bytesOf(job));
    return call;
  }

  /** Takes out a call that has not left this process. */
  drop(call: QueuedCall): boolean {
    return this.#batching.delete(call);
  }

  /** What is left of a batch that was taken out. */
  again(calls: QueuedCall[]): void {
    this.#add(new Batch(this, calls)).catch(() => {});
  }

  /** Whether it could be taken out of the queue, which is only before a worker takes it. */
  async withdraw(id: string): Promise<boolean> {
    const { redis, queue, onError } = this.#options;
    try {
      // BullMQ's own `remove` succeeds for a job that has been served as well; what this takes from the list, no worker has taken.
      if ((await redis.lrem(queue().toKey("wait"), 1, id)) !== 1) return false;
    } catch {
      return false;
    }
    queue().remove(id).catch(onError);
    return true;
  }

  async state(id: string): Promise<JobState> {
    const state = await this.#options.queue().getJobState(id);
    if (state === "active") return "active";
    return state === "waiting" || state === "delayed" || state === "prioritized"
      ? "waiting"
      : "gone";
  }

  async #send(batch: Batch): Promise<void> {
    await this.#add(batch);
    if (this.#crowded) await batch.takenWithin(TAKING_MS);
  }

  async #add(batch: Batch): Promise<void> {
    // Few: they are stored and parsed with each job. Jobs are tried once unless told otherwise; what is done, the consumer removes.
    const options: JobsOptions = {
      jobId: batch.id,
      removeOnFail: true,
      // Stack traces of a failed job would be written to Redis just before it is removed.
      stackTraceLimit: 0,
    };
    try {
      // BullMQ would wait for Redis without bound before it uses a queue for the first time.
      if (!this.#options.isOpen()) await this.#options.redis.ping();
      leaveSoon(this.#options.redis);
      await this.#options.queue().add(JOB_NAME, batch.jobs, options);
      batch.settled();
    } catch (error) {
      batch.settled();
      for (const call of batch.calls) call.notQueued(error as Error);
      throw error;
    }
  }
}

/** One invocation in the queue of a node, as the gateway sees it that put it there. */
export class QueuedCall {
  readonly job: InvocationJob;
  readonly notQueued: (error: Error) => void;
  readonly #outbox: Outbox;
  /** What it left in; undefined while it is here. */
  batch: Batch | undefined;

  constructor(outbox: Outbox, job: InvocationJob, notQueued: (error: Error) => void) {
    this.#outbox = outbox;
    this.job = job;
    this.notQueued = notQueued;
  }

  /** A worker has announced it. */
  taken(): void {
    this.batch?.taken();
  }

  /** Takes it out. True, and that once, only when no worker has had it and none will: it may then be given to another node. */
  async takeBack(): Promise<boolean> {
    for (;;) {
      const { batch } = this;
      if (!batch) return this.#outbox.drop(this);
      if (await batch.withdraw(this)) return true;
      // Another call was taken back meanwhile, and this one left anew.
      if (this.batch === batch) return false;
    }
  }

  async state(): Promise<JobState> {
    return this.batch ? this.batch.state() : "waiting";
  }
}

/** Calls that are one job. */
class Batch {
  readonly id: string;
  readonly calls: readonly QueuedCall[];
  readonly #outbox: Outbox;
  readonly #added = Promise.withResolvers<void>();
  #isTaken = false;
  #onTaken: (() => void) | undefined;
  #unwanted = new Set<QueuedCall>();
  #withdrawing: Promise<boolean> | undefined;

  constructor(outbox: Outbox, calls: readonly QueuedCall[]) {
    this.#outbox = outbox;
    this.calls = calls;
    this.id = batchId(this.jobs);
    for (const call of calls) call.batch = this;
  }

  get jobs(): InvocationJob[] {
    return this.calls.map(({ job }) => job);
  }

  /** A worker has it. */
  taken(): void {
    this.#isTaken = true;
    this.#onTaken?.();
  }

  /** Resolves when a worker has it, or after so long. */
  takenWithin(ms: number): Promise<void> {
    if (this.#isTaken) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#onTaken = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Redis has answered, or will not. */
  settled(): void {
    this.#added.resolve();
  }

  async state(): Promise<JobState> {
    await this.#added.promise;
    return this.#outbox.state(this.id);
  }

  /** Takes a call out, and with it all that are to be taken out at that time; those that are not leave again. */
  async withdraw(call: QueuedCall): Promise<boolean> {
    // Told to one who asks, as it is given back once.
    if (this.#unwanted.has(call)) return false;
    this.#unwanted.add(call);
    this.#withdrawing ??= this.#withdraw();
    return this.#withdrawing;
  }

  async #withdraw(): Promise<boolean> {
    // Not before it is there: it could come into the queue after it was looked for.
    await this.#added.promise;
    await new Promise<void>((resolve) => {
      setImmediate(resolve);
    });
    const out = await this.#outbox.withdraw(this.id);
    const unwanted = this.#unwanted;
    this.#unwanted = new Set();
    this.#withdrawing = undefined;
    if (!out) return false;
    const rest = this.calls.filter((one) => !unwanted.has(one));
    if (rest.length > 0) this.#outbox.again(rest);
    return true;
  }
}

/** Its parts that have no fixed size, about as they are in the job. */
function bytesOf({ head, body }: InvocationJob): number {
  let bytes = head.url.length + head.path.length;
  for (const [name, value] of head.headers) bytes += name.length + value.length;
  if (body) bytes += "text" in body ? body.text.length : body.base64.length;
  return bytes;
}
