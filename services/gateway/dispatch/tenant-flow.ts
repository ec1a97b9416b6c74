/** Weight of what was seen before, at each call that ends: about the last hundred count. */
const MEMORY = 0.98;

/**
 * What one tenant has under way at the nodes, and how much of that time its functions work. The rest is waiting (for a worker, a place, a
 * processor), and more calls under way would only wait longer: so calls that wait are better kept where others can overtake them.
 */
export class TenantFlow {
  /** Calls at nodes. */
  underWay = 0;
  /** When the last of them ended, as long as there is none. */
  idleMs = 0;
  #workedMs = 0;
  #totalMs = 0;

  /**
   * A call has ended that was at its node for `totalMs`, of which it waited `waitedMs` until its function had it, and then for a processor the share
   * `stalled` of the rest. Without that share a flood would seem to work the more of its time, the more of its calls are let in and take the
   * processors from each other.
   */
  ended(totalMs: number, waitedMs: number, stalled = 0): void {
    this.#totalMs = this.#totalMs * MEMORY + totalMs;
    const workedMs = Math.max(0, totalMs - waitedMs) * (1 - stalled);
    this.#workedMs = this.#workedMs * MEMORY + workedMs;
  }

  /** The share of its calls' time at nodes in which they work; all of it, as long as nothing is known. */
  get working(): number {
    return this.#totalMs === 0 ? 1 : this.#workedMs / this.#totalMs;
  }

  /** Whether with one more under way more than `slack` calls would wait at the nodes, on average. One may always be under way. */
  full(slack: number): boolean {
    return this.underWay > 0 && (this.underWay + 1) * (1 - this.working) > slack;
  }
}
