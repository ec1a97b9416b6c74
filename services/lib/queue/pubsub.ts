import type { Redis } from "ioredis";
import { connectRedis, disconnectRedis } from "./redis.ts";

/** Publishes JSON messages. Nobody waits for them, so a message lost in an outage is counted, never retried. */
export class Publisher {
  readonly #redis: Redis;
  #dropped = 0;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  static connect(url: string, onError?: (error: Error) => void): Publisher {
    return new Publisher(connectRedis(url, "request", onError));
  }

  get dropped(): number {
    return this.#dropped;
  }

  /** Resolves with the number of subscribers that got it; 0 when Redis is away. */
  async publish(channel: string, message: unknown): Promise<number> {
    if (this.#redis.status !== "ready") {
      this.#dropped++;
      return 0;
    }
    try {
      return await this.#redis.publish(channel, JSON.stringify(message));
    } catch {
      this.#dropped++;
      return 0;
    }
  }

  close(): Promise<void> {
    return disconnectRedis(this.#redis);
  }
}

type Listener = (message: unknown) => void;

/** Hears JSON messages of any number of channels over one connection; ioredis subscribes again after an outage. */
export class Subscriber {
  readonly #redis: Redis;
  readonly #listeners = new Map<string, Set<Listener>>();

  constructor(url: string, onError?: (error: Error) => void) {
    this.#redis = connectRedis(url, "subscriber", onError);
    this.#redis.on("message", (channel: string, text: string) => {
      const listeners = this.#listeners.get(channel);
      if (!listeners) return;
      let message: unknown;
      try {
        message = JSON.parse(text);
      } catch {
        onError?.(new Error(`A message on ${channel} is not JSON`));
        return;
      }
      for (const listener of listeners) listener(message);
    });
  }

  /** Called at each (re)connection: what was published meanwhile is lost, so caches must be dropped then. */
  onReconnect(listener: () => void): void {
    this.#redis.on("ready", listener);
  }

  /** Resolves when Redis has confirmed; the function that comes back ends this one subscription. */
  async subscribe(channel: string, listener: Listener): Promise<() => Promise<void>> {
    let listeners = this.#listeners.get(channel);
    if (!listeners) {
      listeners = new Set();
      this.#listeners.set(channel, listeners);
    }
    listeners.add(listener);
    await this.#redis.subscribe(channel);
    return async () => {
      listeners.delete(listener);
      if (listeners.size > 0 || this.#listeners.get(channel) !== listeners) return;
      this.#listeners.delete(channel);
      await this.#redis.unsubscribe(channel).catch(() => {});
    };
  }

  close(): Promise<void> {
    this.#listeners.clear();
    return disconnectRedis(this.#redis);
  }
}
