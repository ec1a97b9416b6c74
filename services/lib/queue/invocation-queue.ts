import { type JobsOptions, Worker } from "bullmq";
import type { Redis } from "ioredis";
import type { InvocationJob } from "#contracts/invocation";
import { JOB_NAME, NODES_INDEX, type NodeQueue, openQueue, PREFIX, queueOf } from "./node-queue.ts";
import { type QueueState, queueState } from "./queue-state.ts";
import { connectRedis, disconnectRedis } from "./redis.ts";

/**
 * A worker that does not renew its lock this long has died; its job is then failed, never run again. The caller has
 * long been told by its broken reply link, this only clears Redis.
 */
const LOCK_MS = 30_000;

export type JobState = "waiting" | "active" | "gone";

/** The gateway's side: puts invocations in the queues of nodes. */
export class InvocationProducer {
  readonly #redis: Redis;
  readonly #onError: (error: Error) => void;
  readonly #queues = new Map<string, NodeQueue>();

  constructor(redisUrl: string, onError: (error: Error) => void) {
    this.#redis = connectRedis(redisUrl, "request", onError);
    this.#onError = onError;
  }

  /** The connection, for other quick commands of the same process (heartbeats, publishing). */
  get redis(): Redis {
    return this.#redis;
  }

  /** Resolves when Redis can be used; rejects when it does not answer in a few seconds. */
  async ready(): Promise<void> {
    await this.#redis.ping();
  }

  /** Makes ready to add to the queue of a node, so that the first job need not wait for it. */
  open(nodeId: string): void {
    this.#queue(nodeId);
  }

  /**
   * One round trip. Rejects when Redis does not take it in a few seconds; the job may then still be in the queue, so
   * the caller must be ready to refuse the worker that announces it.
   */
  async add(job: InvocationJob, nodeId: string): Promise<void> {
    // Few: they are stored and parsed with each job. Jobs are tried once unless told otherwise; what is done, the consumer removes.
    const options: JobsOptions = {
      jobId: job.id,
      removeOnFail: true,
      // Stack traces of a failed job would be written to Redis just before it is removed.
      stackTraceLimit: 0,
    };
    // BullMQ would wait for Redis without bound before it uses a queue for the first time.
    if (!this.#queues.has(nodeId)) await this.#redis.ping();
    await this.#queue(nodeId).add(JOB_NAME, job, options);
  }

  async state(id: string, nodeId: string): Promise<JobState> {
    const state = await this.#queue(nodeId).getJobState(id);
    if (state === "active") return "active";
    return state === "waiting" || state === "delayed" || state === "prioritized"
      ? "waiting"
      : "gone";
  }

  /** Takes a waiting job out. True only when no worker has had it and none will: it may then be given to another node. */
  async remove(id: string, nodeId: string): Promise<boolean> {
    const queue = this.#queue(nodeId);
    try {
      // BullMQ's own `remove` succeeds for a job that has been served as well; what this takes from the list, no worker has taken.
      if ((await this.#redis.lrem(queue.toKey("wait"), 1, id)) !== 1) return false;
    } catch {
      return false;
    }
    queue.remove(id).catch(this.#onError);
    return true;
  }

  /** Jobs waiting in the queue of one node. */
  async depth(nodeId: string): Promise<number> {
    return this.#queue(nodeId).getWaitingCount();
  }

  /** The node is gone for good; its queue stays in Redis until a worker clears it (nodes.ts). */
  async forget(nodeId: string): Promise<void> {
    const queue = this.#queues.get(nodeId);
    this.#queues.delete(nodeId);
    await queue?.close().catch(this.#onError);
  }

  /** How the queue of each node stands that is there, or has been lately. */
  async states(): Promise<QueueState[]> {
    const nodeIds = await this.#redis.zrange(NODES_INDEX, 0, -1);
    return Promise.all(
      nodeIds.sort().map(async (nodeId) => {
        const known = this.#queues.get(nodeId);
        if (known) return queueState(known);
        const queue = openQueue(nodeId, this.#redis);
        return queueState(queue).finally(() => queue.close());
      }),
    );
  }

  async close(): Promise<void> {
    await Promise.all([...this.#queues.keys()].map((nodeId) => this.forget(nodeId)));
    await disconnectRedis(this.#redis);
  }

  #queue(nodeId: string): NodeQueue {
    const known = this.#queues.get(nodeId);
    if (known) return known;
    const queue = openQueue(nodeId, this.#redis);
    queue.on("error", this.#onError);
    this.#queues.set(nodeId, queue);
    return queue;
  }
}

export interface ConsumerOptions {
  /** Jobs served at once. */
  concurrency: number;
  /** Hears of a job that was taken and whose lock was not renewed; it has been taken out of the queue and is never run again. */
  lost?: (job: InvocationJob) => void;
}

/** The worker's side: takes the invocations of its node, each exactly once. */
export class InvocationConsumer {
  readonly #redis: Redis;
  readonly #nodeId: string;
  readonly #onError: (error: Error) => void;
  #worker: Worker<InvocationJob, void, typeof JOB_NAME> | undefined;

  constructor(redisUrl: string, nodeId: string, onError: (error: Error) => void) {
    this.#redis = connectRedis(redisUrl, "background", onError);
    this.#nodeId = nodeId;
    this.#onError = onError;
  }

  /** Resolves when jobs are being taken. `handler` tells the caller of everything itself; what it throws is reported. */
  async start(
    handler: (job: InvocationJob) => Promise<void>,
    options: ConsumerOptions,
  ): Promise<void> {
    if (this.#worker) throw new Error("The consumer runs already");
    const worker = new Worker<InvocationJob, void, typeof JOB_NAME>(
      queueOf(this.#nodeId),
      async (job) => {
        try {
          await handler(job.data);
        } catch (error) {
          this.#onError(error instanceof Error ? error : new Error(String(error)));
        }
      },
      {
        connection: this.#redis,
        prefix: PREFIX,
        concurrency: options.concurrency,
        lockDuration: LOCK_MS,
        // A lost worker's job fails; it is never run a second time.
        maxStalledCount: 0,
        maxStartedAttempts: 1,
        // BullMQ waits 15 s after a lost connection by default; callers wait no longer than 30.
        runRetryDelay: 500,
        removeOnComplete: { count: 0 },
        removeOnFail: { count: 0 },
      },
    );
    worker.on("error", this.#onError);
    // The handler never throws out of the processor, so what fails was found without its worker.
    worker.on("failed", (job) => job && options.lost?.(job.data));
    this.#worker = worker;
    await worker.waitUntilReady();
  }

  /** Takes no more jobs; those that run go on. */
  async pause(): Promise<void> {
    await this.#worker?.pause(true);
  }

  /** Takes jobs again. */
  async resume(): Promise<void> {
    await this.#worker?.resume();
  }

  /** Takes no more jobs and waits for those that run, at most `boundMs`. */
  async close(boundMs: number): Promise<void> {
    const worker = this.#worker;
    if (worker) {
      const polite = worker.close().catch(() => {});
      let timer: NodeJS.Timeout | undefined;
      const bound = new Promise<"late">((resolve) => {
        timer = setTimeout(() => resolve("late"), boundMs);
      });
      const outcome = await Promise.race([polite, bound]);
      clearTimeout(timer);
      if (outcome === "late") this.#redis.disconnect();
    }
    await disconnectRedis(this.#redis);
  }
}
