/** Weight of what was seen before, at each call that ends: about the last hundred count. */
const MEMORY = 0.98;

/**
 * What one tenant has under way at the nodes, and how much of that time its functions work. The rest is waiting (for a worker, a place, a
 * processor), and more calls under way would only wait longer: so calls that wait are better kept where others can overtake them.
 */
export class TenantFlow {
  /** Calls at nodes. */
  underWay = 0;
  #workedMs = 0;
  #totalMs = 0;

  /** A call has ended that was at its node for `totalMs`, of which it waited `waitedMs`. */
  ended(totalMs: number, waitedMs: number): void {
    this.#totalMs = this.#totalMs * MEMORY + totalMs;
    this.#workedMs = this.#workedMs * MEMORY + Math.max(0, totalMs - waitedMs);
  }

  /** Calls that work at once, on average; all, as long as nothing is known. */
  get atWork(): number {
    return this.#totalMs === 0 ? this.underWay : (this.underWay * this.#workedMs) / this.#totalMs;
  }

  /** Whether `slack` calls wait at the nodes already. */
  full(slack: number): boolean {
    return this.underWay >= Math.max(1, this.atWork + slack);
  }
}
