import {
  type JobJson,
  QueueKeys,
  RedisConnection,
  RedisQueueBackend,
  raw2NextJobData,
  type WorkerOptions,
} from "bullmq";
import { isUnknownScript, PreparedCommand, PreparedScript, prepare } from "./prepared-commands.ts";
import { leaveSoon, type Redis, scriptOf, severalFollow } from "./redis.ts";

/** Longest wait for a job, s: so often it is looked even if nobody has told of one. */
const WAIT_S = 5;
/** How often it is looked whether answers are overdue, ms: two waits may stand behind each other. */
const OVERDUE_MS = (2 * WAIT_S + 2) * 1000;

const MOVE = "moveToActive";
const KEYS = 11;

/** A job as BullMQ keeps it and its id, or nothing; then what Cloister has no use for. */
export type NextJob = [JobJson | null, string, number, number] | [];

/** BullMQ's arguments of `moveToActive`: keys, the prefix, the time, and what it has packed. */
type MoveArguments = (string | number | Buffer)[];

/**
 * BullMQ's own backend, but that it asks for the next job together with the wait for one. Redis answers a connection's commands in their order, and
 * those behind one that blocks as soon as it ends: so the job itself comes where there would only be word of it, and a worker that has slept is woken
 * once for it instead of twice. What it waits on blocks its connection, which therefore serves nothing else.
 */
export class WaitingBackend extends RedisQueueBackend {
  readonly #redis: Redis;
  /** Blocks while there is no job. */
  readonly #waiting: Redis;
  readonly #wait: string;
  #move: PreparedScript | undefined;
  /** Answers that nobody has taken yet. */
  readonly #asked: Promise<unknown>[] = [];
  /** Questions that are on their way. */
  #unanswered = 0;
  #overdue: NodeJS.Timeout | undefined;
  /**
   * How many jobs the next question is for. Two where the last answer was a job: BullMQ then leaves word that there may be more, and while there is none
   * that word costs the first question, so the wait is behind it, in the same write. Not before a job comes: its answer would leave after the second's.
   */
  ahead: 1 | 2 = 1;

  /** The connections stay the caller's. `waiting` must be this backend's alone. */
  constructor(name: string, options: WorkerOptions, redis: Redis, waiting: Redis) {
    const names = new QueueKeys(options.prefix);
    const keys = names.getKeys(name);
    super(
      new RedisConnection(redis, { shared: true, blocking: false }),
      name,
      keys,
      (type) => names.toKey(name, type),
      options,
      new RedisConnection(waiting, { shared: true, blocking: true }),
    );
    this.#redis = redis;
    this.#waiting = waiting;
    this.#wait = prepare(["bzpopmin", keys.marker as string, WAIT_S], 0);
  }

  /** Whether an answer is there or on its way that must be taken, as it may be a job. */
  get asked(): boolean {
    return this.#asked.length > 0;
  }

  /** Waits for a job, some seconds at most. Rejects when Redis refuses; while it is away it waits longer. */
  override async moveToActive(token: string, name?: string): Promise<NextJob> {
    const asked = this.#asked.shift();
    const next = asked
      ? raw2NextJobData((await asked) as [])
      : await super.moveToActive(token, name);
    return next as NextJob;
  }

  /** What BullMQ asks for a job with leaves by the connection that waits for one. */
  override execCommand(
    client: Parameters<RedisQueueBackend["execCommand"]>[0],
    command: string,
    args: MoveArguments,
  ): unknown {
    if (command !== MOVE) return super.execCommand(client, command, args);
    const again = (): unknown => super.execCommand(client, command, args);
    severalFollow(this.#waiting);
    leaveSoon(this.#waiting);
    this.#move ??= new PreparedScript(scriptOf(this.#waiting, `${MOVE}:${this.version}`), KEYS);
    const move = this.#move.with(args);
    const first = this.#ask(move, again);
    if (this.ahead === 2) {
      const second = this.#ask(move, again);
      second.catch(() => {});
      this.#asked.push(second);
    }
    return first;
  }

  /**
   * Ends a wait at once. Who waits hears of a job that Redis gives out at that moment, as it must: nobody else would. A connection that is broken brings
   * none.
   */
  async endWait(): Promise<void> {
    if (this.#waiting.status !== "ready") this.#waiting.disconnect();
    // As BullMQ itself tells of a job; a marker that nobody waits for says nothing wrong.
    else await this.#redis.zadd(this.keys.marker as string, 0, "0");
  }

  async #ask(move: Buffer, again: () => unknown): Promise<unknown> {
    this.#unanswered++;
    this.#overdue ??= setInterval(this.#askAnew, OVERDUE_MS);
    try {
      // Its failure is that of the command behind it as well.
      this.#send("bzpopmin", this.#wait).catch(() => {});
      return await this.#send("evalsha", move);
    } catch (error) {
      if (!isUnknownScript(error)) throw error;
      // The word of a job is taken already, so it is asked for at once, with the script itself.
      return await again();
    } finally {
      if (--this.#unanswered === 0) {
        clearInterval(this.#overdue);
        this.#overdue = undefined;
      }
    }
  }

  /** An answer that is overdue has been lost with its connection: ioredis asks all of it again on the next one. */
  readonly #askAnew = (): void => {
    if (this.#waiting.status === "ready") this.#waiting.disconnect(true);
  };

  #send(name: string, bytes: string | Buffer): Promise<unknown> {
    const command = new PreparedCommand(name, bytes, { replyEncoding: "utf8" });
    return this.#waiting.sendCommand(command) as Promise<unknown>;
  }
}
