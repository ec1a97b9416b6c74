import type { InvocationLink } from "#protocol/link";
import type { QueuedCall } from "#queue/outbox";

/** A call nobody has taken yet. */
export interface WaitingCall {
  readonly id: string;
  /** When it gives up, on performance.now()'s clock, ms. */
  deadlineMs: number;
  waitedTooLong(): void;
}

/** What a worker's announcement and a lost job are told to. */
export interface TakenCall extends WaitingCall {
  /** Its place in the queue of a node, until a worker is known to have it. */
  readonly queued: Pick<QueuedCall, "state"> | undefined;
  /** A worker has the invocation; called within the link's `invoke`. */
  attach(link: InvocationLink, streamId: number): void;
  /** Ends it with an error, unless it has ended. */
  fail(error: unknown): void;
}

/**
 * The calls that wait, for their body or for a worker. All wait equally long, so the order in which they came is the order of their
 * deadlines and one timer serves them all.
 */
export class Calls<C extends WaitingCall> {
  readonly #waitMs: number;
  readonly #waiting = new Map<string, C>();
  #timer: NodeJS.Timeout | undefined;

  constructor(waitMs: number) {
    this.#waitMs = waitMs;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Begins (again) to wait. */
  add(call: C): void {
    call.deadlineMs = performance.now() + this.#waitMs;
    this.#waiting.delete(call.id);
    this.#waiting.set(call.id, call);
    this.#timer ??= setTimeout(this.#expire, this.#waitMs);
  }

  get(id: string): C | undefined {
    return this.#waiting.get(id);
  }

  remove(call: C): void {
    this.#waiting.delete(call.id);
  }

  values(): C[] {
    return [...this.#waiting.values()];
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  readonly #expire = (): void => {
    this.#timer = undefined;
    const now = performance.now();
    for (const call of this.#waiting.values()) {
      if (call.deadlineMs > now) {
        this.#timer = setTimeout(this.#expire, call.deadlineMs - now);
        return;
      }
      this.#waiting.delete(call.id);
      call.waitedTooLong();
    }
  };
}
