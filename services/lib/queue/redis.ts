import type { Socket } from "node:net";
import { Redis, type RedisOptions } from "ioredis";

export type { Redis } from "ioredis";

/**
 * While there is much to do, its commands of one turn of the event loop leave in one write: each write wakes Redis, which costs more than the command.
 * Otherwise they leave at once: the end of the turn may be long in coming for one that waits alone.
 */
class GatheringRedis extends Redis {
  /** Commands of this turn; the turn's end is awaited while there are any. */
  #sent = 0;
  /** The last turn had several. */
  #many = false;
  #corked: Socket | undefined;
  /** The next command comes after a turn's end. */
  leaveSoon = false;
  /** Texts of the scripts that were defined, by their commands' names. */
  readonly scripts = new Map<string, string>();
  readonly #uncork = (): void => {
    const socket = this.#corked;
    this.#corked = undefined;
    socket?.uncork();
  };
  readonly #turnOver = (): void => {
    this.#many = this.#sent > 1;
    this.#sent = 0;
    this.#uncork();
  };

  severalFollow(): void {
    if (this.#sent === 0) this.#many = true;
  }

  override defineCommand(...args: Parameters<Redis["defineCommand"]>): void {
    const [name, { lua }] = args;
    this.scripts.set(name, lua);
    super.defineCommand(...args);
  }

  override sendCommand(...args: Parameters<Redis["sendCommand"]>): unknown {
    const { stream } = this as { stream?: Socket };
    if (stream && this.status === "ready" && this.#sent++ === 0) {
      if (this.#many) {
        this.#corked = stream;
        stream.cork();
      }
      // After all that was ready to be read has been: a tick ends with each socket's own callback.
      setImmediate(this.#turnOver);
    }
    if (this.leaveSoon) {
      this.leaveSoon = false;
      // After the promises that have been settled until now have been heard, and with what was sent because of them.
      process.nextTick(this.#uncork);
    }
    return super.sendCommand(...args);
  }
}

/** For one who is about to send several commands in this turn: they leave together at its end. */
export function severalFollow(redis: Redis): void {
  if (redis instanceof GatheringRedis) redis.severalFollow();
}

/** For one who has waited for the end of the turn already: its command need not wait for the end of the next. */
export function leaveSoon(redis: Redis): void {
  if (redis instanceof GatheringRedis) redis.leaveSoon = true;
}

/** The text of a script that was defined on a connection of this file. */
export function scriptOf(redis: Redis, command: string): string {
  const text = redis instanceof GatheringRedis ? redis.scripts.get(command) : undefined;
  if (text === undefined) throw new Error(`No script is known by the name ${command}`);
  return text;
}

/**
 * What a connection is for decides how it behaves while Redis is away:
 * - `request`: somebody waits for the answer, so a command fails after a few quick attempts, and one whose answer was
 *   lost is never sent again (an `add` that did arrive must not run a function twice);
 * - `background`: loops that must outlive any outage, so commands wait for the next connection;
 * - `subscriber`: the same for one that only listens. It is not asked with INFO whether it is ready: Redis refuses that where a SUBSCRIBE has come
 *   before it, and what was published until the next connection would be lost.
 */
export type RedisUse = "request" | "background" | "subscriber";

/** Wait before attempt n of a reconnect, ms: 50, 100, 200 … 1000. */
const retryDelayMs = (attempt: number): number => Math.min(1000, 25 * 2 ** Math.min(attempt, 6));

/** Longest a command of a `request` connection may take, ms. */
const REQUEST_TIMEOUT_MS = 5000;

function address(url: string): RedisOptions {
  if (url.startsWith("unix:")) {
    const path = url.slice("unix:".length).replace(/^\/\/(?=\/)/, "");
    if (!path.startsWith("/"))
      throw new Error(
        "CLOISTER_REDIS_URL: unix: needs an absolute path, e.g. unix:/run/redis.sock",
      );
    return { path };
  }
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (!parsed || (parsed.protocol !== "redis:" && parsed.protocol !== "rediss:"))
    throw new Error(
      "CLOISTER_REDIS_URL must be redis://host:port, rediss://host:port or unix:/path",
    );
  const database = parsed.pathname.length > 1 ? Number(parsed.pathname.slice(1)) : 0;
  if (!Number.isInteger(database) || database < 0)
    throw new Error(
      "CLOISTER_REDIS_URL: the path must be a database number, e.g. redis://host:6379/0",
    );
  return {
    host: parsed.hostname.replace(/^\[|\]$/g, "") || "127.0.0.1",
    port: parsed.port ? Number(parsed.port) : 6379,
    db: database,
    ...(parsed.username ? { username: decodeURIComponent(parsed.username) } : {}),
    ...(parsed.password ? { password: decodeURIComponent(parsed.password) } : {}),
    ...(parsed.protocol === "rediss:" ? { tls: {} } : {}),
  };
}

/**
 * Connects to `redis://…`, `rediss://…` or `unix:/path`. Reconnects for ever; `onError` hears each failed attempt, so
 * that an outage is in the log and never an unhandled event.
 */
export function connectRedis(
  url: string,
  use: RedisUse,
  onError: (error: Error) => void = () => {},
): Redis {
  const redis = new GatheringRedis({
    ...address(url),
    connectTimeout: 3000,
    retryStrategy: retryDelayMs,
    enableReadyCheck: use !== "subscriber",
    ...(use === "request"
      ? {
          maxRetriesPerRequest: 3,
          commandTimeout: REQUEST_TIMEOUT_MS,
          autoResendUnfulfilledCommands: false,
        }
      : { maxRetriesPerRequest: null }),
  });
  redis.on("error", onError);
  return redis;
}

/** Ends a connection; gives up on a polite end after 1 s. */
export async function disconnectRedis(redis: Redis): Promise<void> {
  if (redis.status === "end") return;
  if (redis.status !== "ready") {
    redis.disconnect();
    return;
  }
  const timer = setTimeout(() => redis.disconnect(), 1000);
  await redis.quit().catch(() => redis.disconnect());
  clearTimeout(timer);
}
