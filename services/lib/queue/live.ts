import { z } from "zod";
import { type LiveBatch, liveBatchSchema } from "#contracts/live";
import type { Publisher, Subscriber } from "./pubsub.ts";

/** Redis pub/sub channels: on the first a gateway says that somebody watches, on the second nodes tell what happens. */
const WATCHED = "cloister:live:watched";
const BATCHES = "cloister:live";

/** Nodes tell for so long after they were last asked to, ms. */
const LEASE_MS = 15_000;
/** A gateway with watchers asks again this often; a node that has just started hears it then, ms. */
const RENEW_MS = 5000;
const MAX_LEASE_MS = 60_000;

const watchedSchema = z.object({ forMs: z.number().int().min(1).max(MAX_LEASE_MS) });

/** The worker's end: `watched` hears for how long somebody will be watching. */
export const hearWatchers = (
  subscriber: Subscriber,
  watched: (forMs: number) => void,
): Promise<() => Promise<void>> =>
  subscriber.subscribe(WATCHED, (message) => {
    const parsed = watchedSchema.safeParse(message);
    if (parsed.success) watched(parsed.data.forMs);
  });

export const publishLive = (publisher: Publisher, batch: LiveBatch): Promise<number> =>
  publisher.publish(BATCHES, batch);

type Listener = (batch: LiveBatch) => void;

/** The gateway's end: all who watch share one subscription, and while nobody does nothing is sent. */
export class LiveWatch {
  readonly #subscriber: Subscriber;
  readonly #publisher: Publisher;
  readonly #listeners = new Set<Listener>();
  #timer: NodeJS.Timeout | undefined;
  #subscribed: Promise<() => Promise<void>> | undefined;

  constructor(subscriber: Subscriber, publisher: Publisher) {
    this.#subscriber = subscriber;
    this.#publisher = publisher;
  }

  get watchers(): number {
    return this.#listeners.size;
  }

  /** Resolves when Redis listens; every node then tells at once how it stands. The function that comes back ends it. */
  async watch(listener: Listener): Promise<() => void> {
    this.#listeners.add(listener);
    const end = (): void => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#stop();
    };
    try {
      this.#subscribed ??= this.#subscriber.subscribe(BATCHES, (message) => this.#heard(message));
      await this.#subscribed;
    } catch (error) {
      end();
      throw error;
    }
    if (this.#listeners.size > 0) {
      this.#timer ??= setInterval(() => this.#renew(), RENEW_MS);
      this.#renew();
    }
    return end;
  }

  #heard(message: unknown): void {
    const parsed = liveBatchSchema.safeParse(message);
    if (parsed.success) for (const listener of [...this.#listeners]) listener(parsed.data);
  }

  #renew(): void {
    void this.#publisher.publish(WATCHED, { forMs: LEASE_MS });
  }

  #stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    const subscribed = this.#subscribed;
    this.#subscribed = undefined;
    subscribed?.then((end) => end()).catch(() => {});
  }
}
