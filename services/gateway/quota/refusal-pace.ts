/** Refusals of one tenant that are told at once, a second, and after a rest. */
const PROMPT = 100;
const SECOND_MS = 1000;
const EACH_MS = SECOND_MS / PROMPT;
/** Longest that one is held back, ms: no `Retry-After` is shorter. */
const LONGEST_MS = 1000;
/** Held back at once, of all tenants: each keeps its connection. */
const MOST_HELD = 2000;
/** Tenants whose refusals are remembered. */
const TENANTS = 10_000;

/**
 * When a refusal is told. Callers who ask again as soon as they are refused would otherwise have a gateway do little else, and other tenants' calls wait
 * behind them: so one tenant's refusals beyond `PROMPT` a second wait for their turns, as by GCRA.
 */
export class RefusalPace {
  /** When the next refusal of a tenant would be on time, on performance.now()'s clock, ms; those refused last at the end. */
  readonly #dueMs = new Map<string, number>();
  #held = 0;

  /** Calls `tell` now or within `LONGEST_MS`. */
  inTurn(tenantId: string, tell: () => void): void {
    const waitMs = this.#waitMs(tenantId, performance.now());
    if (waitMs < 1 || this.#held >= MOST_HELD) {
      tell();
      return;
    }
    this.#held++;
    setTimeout(() => {
      this.#held--;
      tell();
    }, waitMs);
  }

  #waitMs(tenantId: string, nowMs: number): number {
    const dueMs = Math.max(nowMs, this.#dueMs.get(tenantId) ?? nowMs);
    this.#dueMs.delete(tenantId);
    this.#dueMs.set(tenantId, Math.min(dueMs + EACH_MS, nowMs + SECOND_MS + LONGEST_MS));
    if (this.#dueMs.size > TENANTS) {
      const [oldest] = this.#dueMs.keys();
      if (oldest !== undefined) this.#dueMs.delete(oldest);
    }
    return Math.min(LONGEST_MS, dueMs - nowMs - SECOND_MS + EACH_MS);
  }
}
