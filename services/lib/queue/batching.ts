/** How much goes together at most. One item that is larger than `bytes` goes alone. */
export interface BatchBounds {
  items: number;
  bytes: number;
}

interface Waiting<T> {
  item: T;
  bytes: number;
}

/**
 * Joins what is on its way to the same place. One item that is alone leaves at once. What comes while it is on its way gathers, and leaves when it has
 * arrived, at the end of that turn of the event loop, as there may be more in it. So who is alone waits for nobody, not even for a turn's end, and the
 * more there is to send, the more goes at once.
 */
export class Batching<T> {
  readonly #bounds: BatchBounds;
  readonly #send: (items: T[]) => Promise<void>;
  readonly #refused: (items: T[], error: Error) => void;
  #waiting: Waiting<T>[] = [];
  /** The turn's end is awaited, or the arrival of what was sent. */
  #held = false;
  /** Something was joined lately: there is more than one who sends. */
  #joined = false;

  /** `send` takes one batch. When it rejects, `refused` hears of what has gathered meanwhile too: it would fare the same, only later. */
  constructor(
    bounds: BatchBounds,
    send: (items: T[]) => Promise<void>,
    refused: (items: T[], error: Error) => void,
  ) {
    this.#bounds = bounds;
    this.#send = send;
    this.#refused = refused;
  }

  add(item: T, bytes: number): void {
    this.#waiting.push({ item, bytes });
    if (this.#held) return;
    this.#held = true;
    if (this.#joined) setImmediate(this.#leave);
    else this.#leave();
  }

  /** Takes one out that has not left; false when it is not here. */
  delete(item: T): boolean {
    const at = this.#waiting.findIndex((one) => one.item === item);
    if (at < 0) return false;
    this.#waiting.splice(at, 1);
    return true;
  }

  readonly #leave = (): void => {
    this.#joined = this.#waiting.length > 1;
    const batches = cut(this.#waiting, this.#bounds);
    this.#waiting = [];
    Promise.all(batches.map((items) => this.#send(items))).then(
      () => this.#arrived(),
      (error: Error) => {
        const waiting = this.#waiting.map(({ item }) => item);
        this.#waiting = [];
        this.#held = false;
        if (waiting.length > 0) this.#refused(waiting, error);
      },
    );
  };

  #arrived(): void {
    if (this.#waiting.length > 0) setImmediate(this.#leave);
    else this.#held = false;
  }
}

/** In order, each within the bounds. */
function cut<T>(waiting: readonly Waiting<T>[], bounds: BatchBounds): T[][] {
  const batches: T[][] = [];
  let batch: T[] = [];
  let held = 0;
  for (const { item, bytes } of waiting) {
    if (batch.length >= bounds.items || (batch.length > 0 && held + bytes > bounds.bytes)) {
      batches.push(batch);
      batch = [];
      held = 0;
    }
    batch.push(item);
    held += bytes;
  }
  if (batch.length > 0) batches.push(batch);
  return batches;
}
