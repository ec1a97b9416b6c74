/** Whom this node has had work of lately. Marking one costs a map operation, nothing is timed. */
export class RecentlySeen {
  readonly #memoryMs: number;
  readonly #seenMs = new Map<string, number>();

  constructor(memoryMs: number) {
    this.#memoryMs = memoryMs;
  }

  /** Whether it had not been seen for long. */
  mark(id: string, nowMs: number): boolean {
    const before = this.#seenMs.get(id);
    this.#seenMs.set(id, nowMs);
    return before === undefined || nowMs - before > this.#memoryMs;
  }

  /** How many have been seen; forgets the others. */
  count(nowMs: number): number {
    for (const [id, atMs] of this.#seenMs)
      if (nowMs - atMs > this.#memoryMs) this.#seenMs.delete(id);
    return this.#seenMs.size;
  }
}
