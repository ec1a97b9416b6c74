import { Job, Worker } from "bullmq";
import type { Redis } from "ioredis";
import type { InvocationJob } from "#contracts/invocation";
import { type Invocations, type JOB_NAME, PREFIX, queueOf } from "./node-queue.ts";
import { BATCH } from "./outbox.ts";
import { connectRedis, disconnectRedis, severalFollow } from "./redis.ts";
import { WaitingBackend } from "./waiting-backend.ts";

/**
 * A worker that does not renew its lock this long has died; its job is then failed, never run again. The callers have
 * long been told by their broken reply link, this only clears Redis.
 */
const LOCK_MS = 30_000;
/** BullMQ waits 15 s after a lost connection by default; callers wait no longer than 30. */
const RETRY_MS = 500;
/** Nobody waits for a job to leave Redis once its calls are answered: those that are done within this leave in one write, ms. */
const LEAVING_MS = 25;
/** A worker that is sated may no longer be so without a call's end: it looks again after this, ms. */
const SATED_MS = 25;

export interface ConsumerOptions {
  /** Invocations served at once; a last job is taken whole, so there may be so many more as a job is at most. */
  concurrency: number;
  /** Whether more calls would only wait here for those that are here: none are taken then until one has ended, or some time later. */
  sated?: () => boolean;
  /** Hears of invocations that were taken and whose lock was not renewed; they have been taken out of the queue and are never run again. */
  lost?: (calls: Invocations) => void;
}

type BatchWorker = Worker<Invocations, void, typeof JOB_NAME, WaitingBackend>;
type BatchJob = Job<Invocations, void, typeof JOB_NAME>;

/**
 * The worker's side: takes the invocations of its node, each exactly once. It fetches its jobs itself, as BullMQ's own loop counts jobs, and begins
 * none before it has fetched all there are.
 */
export class InvocationConsumer {
  readonly #redis: Redis;
  /** On it the next job is waited for. */
  readonly #waiting: Redis;
  readonly #nodeId: string;
  readonly #onError: (error: Error) => void;
  #worker: BatchWorker | undefined;
  #concurrency = 0;
  #sated: () => boolean = () => false;
  /** Invocations under way. */
  #calls = 0;
  /** Jobs under way, by id. Their locks have the worker's own id for a token: only it has any here. */
  readonly #jobs = new Set<string>();
  #paused = false;
  #closing = false;
  #loop: Promise<void> = Promise.resolve();
  /** Something has changed that jobs are not fetched for. */
  #changed: (() => void) | undefined;
  #allDone: (() => void) | undefined;
  /** Jobs whose calls are all answered, until they leave Redis. */
  #leaving: (() => void)[] = [];
  #locks: NodeJS.Timeout | undefined;

  constructor(redisUrl: string, nodeId: string, onError: (error: Error) => void) {
    this.#redis = connectRedis(redisUrl, "background", onError);
    this.#waiting = connectRedis(redisUrl, "background", onError);
    this.#nodeId = nodeId;
    this.#onError = onError;
  }

  /** Resolves when jobs are being taken. `handler` tells the caller of everything itself; what it throws is reported. */
  async start(
    handler: (call: InvocationJob) => Promise<void>,
    options: ConsumerOptions,
  ): Promise<void> {
    if (this.#worker) throw new Error("The consumer runs already");
    const worker: BatchWorker = new Worker(
      queueOf(this.#nodeId),
      ({ data }: BatchJob) => this.#serve(data, handler),
      {
        connection: this.#redis,
        prefix: PREFIX,
        autorun: false,
        lockDuration: LOCK_MS,
        // A lost worker's job fails; it is never run a second time.
        maxStalledCount: 0,
        maxStartedAttempts: 1,
        runRetryDelay: RETRY_MS,
        removeOnComplete: { count: 0 },
        removeOnFail: { count: 0 },
      },
      (name, settings) => new WaitingBackend(name, settings, this.#redis, this.#waiting),
    );
    worker.on("error", this.#onError);
    // The handler never throws out of the processor, so what fails was found without its worker.
    worker.on("failed", (job) => job && options.lost?.(job.data));
    this.#worker = worker;
    this.#concurrency = options.concurrency;
    if (options.sated) this.#sated = options.sated;
    await worker.waitUntilReady();
    await worker.startStalledCheckTimer();
    this.#locks = setInterval(() => this.#renewLocks(worker), LOCK_MS / 3);
    this.#loop = this.#takeAll(worker);
  }

  /** Takes no more jobs; those that run go on. */
  pause(): void {
    this.#paused = true;
  }

  /** Takes jobs again. */
  resume(): void {
    this.#paused = false;
    this.#changed?.();
  }

  /** Takes no more jobs and waits for those that run, at most `boundMs`. */
  async close(boundMs: number): Promise<void> {
    this.#closing = true;
    this.#changed?.();
    const worker = this.#worker;
    if (worker) {
      let timer: NodeJS.Timeout | undefined;
      const bound = new Promise<"late">((resolve) => {
        timer = setTimeout(() => resolve("late"), boundMs);
      });
      const outcome = await Promise.race([this.#end(worker), bound]);
      clearTimeout(timer);
      clearInterval(this.#locks);
      if (outcome === "late") {
        this.#redis.disconnect();
        this.#waiting.disconnect();
      }
    }
    await Promise.all([disconnectRedis(this.#redis), disconnectRedis(this.#waiting)]);
  }

  async #end(worker: BatchWorker): Promise<void> {
    this.#leave();
    await worker.backend.endWait().catch(() => {});
    // What came at that moment is served like the rest.
    await this.#loop;
    if (this.#jobs.size > 0)
      await new Promise<void>((resolve) => {
        this.#allDone = resolve;
      });
    await worker.close().catch(() => {});
  }

  async #takeAll(worker: BatchWorker): Promise<void> {
    const { backend } = worker;
    let jobCame = false;
    for (;;) {
      const places = this.#concurrency - this.#calls;
      // What has been asked for may be given out already: it is taken in any case.
      if (this.#closing) {
        if (!backend.asked) return;
        backend.endWait().catch(() => {});
      } else if (!backend.asked) {
        const full = this.#paused || places <= 0;
        if (full || this.#sated()) {
          await this.#untilChange(full ? undefined : SATED_MS);
          continue;
        }
      }
      // Only where the first leaves a place for the second, whatever is in it.
      backend.ahead = jobCame && places > BATCH.items ? 2 : 1;
      jobCame = false;
      try {
        const [json, id] = await backend.moveToActive(worker.id);
        if (!json) continue;
        this.#take(worker, Job.fromJSON<Invocations, void, typeof JOB_NAME>(worker, json, id));
        jobCame = true;
      } catch (error) {
        if (this.#closing) continue;
        this.#onError(error as Error);
        await worker.delay(RETRY_MS);
        continue;
      }
      // What the calls lead to leaves before the next question does.
      if (!backend.asked)
        await new Promise<void>((resolve) => {
          setImmediate(resolve);
        });
    }
  }

  /** Resolves when jobs may have to be fetched that were not before, after `boundMs` at the latest. */
  async #untilChange(boundMs: number | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = boundMs === undefined ? undefined : setTimeout(resolve, boundMs);
    this.#changed = resolve;
    await promise;
    this.#changed = undefined;
    clearTimeout(timer);
  }

  #take(worker: BatchWorker, job: BatchJob): void {
    const id = job.id as string;
    this.#jobs.add(id);
    worker
      .processJob(job, worker.id, () => false)
      .catch(this.#onError)
      .finally(() => {
        this.#jobs.delete(id);
        if (this.#jobs.size === 0) this.#allDone?.();
      });
  }

  /** The job is done when each of its invocations is; none waits for another. */
  #serve(calls: Invocations, handler: (call: InvocationJob) => Promise<void>): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    let left = calls.length;
    this.#calls += left;
    const ended = (): void => {
      this.#calls--;
      if (!this.#paused && this.#calls < this.#concurrency) this.#changed?.();
      if (--left > 0) return;
      if (this.#leaving.push(resolve) === 1) setTimeout(this.#leave, LEAVING_MS);
      if (this.#closing) this.#leave();
    };
    for (const call of calls)
      handler(call)
        .catch((error: unknown) =>
          this.#onError(error instanceof Error ? error : new Error(String(error))),
        )
        .then(ended);
    return promise;
  }

  readonly #leave = (): void => {
    const leaving = this.#leaving;
    this.#leaving = [];
    if (leaving.length > 1) severalFollow(this.#redis);
    for (const done of leaving) done();
  };

  #renewLocks(worker: BatchWorker): void {
    if (this.#jobs.size === 0) return;
    const ids = [...this.#jobs];
    worker
      .extendJobLocks(
        ids,
        ids.map(() => worker.id),
        LOCK_MS,
      )
      .then((gone) => {
        for (const id of gone)
          if (this.#jobs.has(id)) this.#onError(new Error(`The lock of the job ${id} is gone`));
      }, this.#onError);
  }
}
