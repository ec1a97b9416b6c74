import { type JobsOptions, Queue, Worker } from "bullmq";
import type { Redis } from "ioredis";
import type { InvocationJob } from "#contracts/invocation";
import { type QueueState, queueState } from "./queue-state.ts";
import { connectRedis, disconnectRedis } from "./redis.ts";

export const QUEUE_NAME = "invocations";
const PREFIX = "cloister";
const JOB_NAME = "invoke";

/**
 * A worker that does not renew its lock this long has died; its job is then failed, never run again. The caller has
 * long been told by its broken reply link, this only clears Redis.
 */
const LOCK_MS = 30_000;

/** Nobody reads BullMQ's event stream and it cannot be switched off: keep it at its smallest. */
const EVENTS_KEPT = 1;

export type JobState = "waiting" | "active" | "gone";

/** The gateway's side: puts invocations in the queue. */
export class InvocationProducer {
  readonly #redis: Redis;
  readonly #queue: Queue<InvocationJob, void, typeof JOB_NAME>;

  constructor(redisUrl: string, onError: (error: Error) => void) {
    this.#redis = connectRedis(redisUrl, "request", onError);
    this.#queue = new Queue(QUEUE_NAME, {
      connection: this.#redis,
      prefix: PREFIX,
      streams: { events: { maxLen: EVENTS_KEPT } },
    });
    this.#queue.on("error", onError);
  }

  /** The connection, for other quick commands of the same process (heartbeats, publishing). */
  get redis(): Redis {
    return this.#redis;
  }

  /** Resolves when Redis can be used; rejects with the first failure to connect. */
  async ready(): Promise<void> {
    await this.#queue.waitUntilReady();
  }

  /**
   * One round trip. Rejects when Redis does not take it in a few seconds; the job may then still be in the queue, so
   * the caller must be ready to refuse the worker that announces it.
   */
  async add(job: InvocationJob): Promise<void> {
    // Few: they are stored and parsed with each job. Jobs are tried once unless told otherwise; what is done, the consumer removes.
    const options: JobsOptions = {
      jobId: job.id,
      removeOnFail: true,
      // Stack traces of a failed job would be written to Redis just before it is removed.
      stackTraceLimit: 0,
    };
    await this.#queue.add(JOB_NAME, job, options);
  }

  async state(id: string): Promise<JobState> {
    const state = await this.#queue.getJobState(id);
    if (state === "active") return "active";
    return state === "waiting" || state === "delayed" || state === "prioritized"
      ? "waiting"
      : "gone";
  }

  /** Takes a waiting job out; false when a worker already has it or it is gone. */
  async remove(id: string): Promise<boolean> {
    try {
      return (await this.#queue.remove(id)) === 1;
    } catch {
      return false;
    }
  }

  /** Jobs waiting for a worker. */
  async depth(): Promise<number> {
    return this.#queue.getWaitingCount();
  }

  /** How each queue stands. */
  async states(): Promise<QueueState[]> {
    return [await queueState(this.#queue)];
  }

  async close(): Promise<void> {
    await this.#queue.close().catch(() => {});
    await disconnectRedis(this.#redis);
  }
}

export interface ConsumerOptions {
  /** Jobs served at once. */
  concurrency: number;
}

/** The worker's side: takes invocations, each exactly once. */
export class InvocationConsumer {
  readonly #redis: Redis;
  readonly #onError: (error: Error) => void;
  #worker: Worker<InvocationJob, void, typeof JOB_NAME> | undefined;

  constructor(redisUrl: string, onError: (error: Error) => void) {
    this.#redis = connectRedis(redisUrl, "background", onError);
    this.#onError = onError;
  }

  /** Resolves when jobs are being taken. `handler` tells the caller of everything itself; what it throws is reported. */
  async start(
    handler: (job: InvocationJob) => Promise<void>,
    options: ConsumerOptions,
  ): Promise<void> {
    if (this.#worker) throw new Error("The consumer runs already");
    const worker = new Worker<InvocationJob, void, typeof JOB_NAME>(
      QUEUE_NAME,
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
