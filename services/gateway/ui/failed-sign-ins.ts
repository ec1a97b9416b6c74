/** Wrong keys of one address that are answered, and the time in which they are counted, ms. */
export const MOST_FAILURES = 10;
export const FAILURES_MS = 60_000;
/** Addresses that are remembered; the oldest go first. */
const MAX_ADDRESSES = 10_000;

interface Window {
  count: number;
  sinceMs: number;
}

/** Counts sign-ins that failed, by address of the peer, in this process's memory. */
export class FailedSignIns {
  readonly #windows = new Map<string, Window>();

  get size(): number {
    return this.#windows.size;
  }

  /** How long this address is to wait, ms; 0 when it may try. */
  waitMs(address: string, nowMs: number): number {
    const window = this.#windows.get(address);
    if (!window || window.count < MOST_FAILURES) return 0;
    return Math.max(0, window.sinceMs + FAILURES_MS - nowMs);
  }

  failed(address: string, nowMs: number): void {
    const window = this.#windows.get(address);
    if (window && nowMs - window.sinceMs < FAILURES_MS) {
      window.count++;
      return;
    }
    // To the end of the map, which is in order of age.
    this.#windows.delete(address);
    this.#windows.set(address, { count: 1, sinceMs: nowMs });
    if (this.#windows.size > MAX_ADDRESSES) {
      const [oldest] = this.#windows.keys();
      if (oldest !== undefined) this.#windows.delete(oldest);
    }
  }
}
