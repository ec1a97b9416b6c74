/**
 * Things in the order in which they became idle, with one timer for all of them. Adding and taking out cost two map
 * operations and never touch the timer, so that a warm invocation pays nothing for expiry.
 */
export class IdleSet<T> {
  readonly #since = new Map<T, number>();
  readonly #idleMs: number;
  readonly #onExpired: (item: T) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(idleMs: number, onExpired: (item: T) => void) {
    this.#idleMs = idleMs;
    this.#onExpired = onExpired;
  }

  get size(): number {
    return this.#since.size;
  }

  add(item: T): void {
    this.#since.set(item, performance.now());
    if (!this.#timer) this.#arm(this.#idleMs);
  }

  delete(item: T): boolean {
    return this.#since.delete(item);
  }

  /** The one idle longest. */
  oldest(): T | undefined {
    return this.#since.keys().next().value;
  }

  items(): T[] {
    return [...this.#since.keys()];
  }

  clear(): void {
    this.#since.clear();
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(inMs: number): void {
    this.#timer = setTimeout(() => this.#expire(), Math.max(1, inMs));
    this.#timer.unref();
  }

  #expire(): void {
    this.#timer = undefined;
    const limit = performance.now() - this.#idleMs;
    for (const [item, since] of this.#since) {
      if (since > limit) {
        this.#arm(since - limit);
        return;
      }
      this.#since.delete(item);
      this.#onExpired(item);
    }
  }
}
