import type { InvocationLimits } from "#contracts/quota";
import { CloisterError } from "#errors/catalogue";
import { type CountersAnswer, leaseKeysOf, type QuotaCounters } from "#queue/quota-counters";
import { quotaExceeded } from "./quota-error.ts";
import { type RateLimitHeaders, rateLimitHeaders, secondsLeftOf } from "./rate-limit-headers.ts";

export interface AdmissionsOptions {
  counters: Pick<QuotaCounters, "leaseMs" | "admit" | "release" | "renew" | "raiseMonth">;
  /** GB-seconds of a tenant's month by its records; asked when Redis does not know. */
  readMonthTotal: (tenantId: string, month: string) => Promise<number>;
  onProblem: (error: Error) => void;
}

/** A call that may run. */
export interface Admission {
  headers: RateLimitHeaders;
  /** The call has ended. */
  release(): void;
}

/**
 * The one door to an invocation: whatever may start one asks here first, unless its target has no limits. What is counted is shared by all gateways, and
 * without Redis nobody is let in.
 */
export class Admissions {
  readonly #options: AdmissionsOptions;
  /** At least one renewal may be lost before a lease ends, ms. */
  readonly #renewMs: number;
  /** Leases of calls under way here, by key and id, with when they were last sure, on performance.now()'s clock, ms. */
  readonly #leases = new Map<string, Map<string, number>>();
  readonly #months = new Map<string, Promise<void>>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: AdmissionsOptions) {
    this.#options = options;
    this.#renewMs = options.counters.leaseMs / 4;
  }

  /** Rejects with `quota_exceeded`, or with `dependency_unavailable` when it cannot be told. */
  async admit(limits: InvocationLimits, id: string): Promise<Admission> {
    if (limits.beyond) throw quotaExceeded(limits.beyond);
    let answer = await this.#ask(limits, id);
    if (answer.refused === "month" && answer.month) {
      await this.#learnMonth(limits.tenantId, answer.month.name);
      answer = await this.#ask(limits, id);
    }
    const { refused } = answer;
    if (refused === "month")
      throw new CloisterError("dependency_unavailable", "What was used this month is not known");
    const headers = rateLimitHeaders(limits, answer);
    if (refused) throw quotaExceeded(refused, retryAfterS(answer), headers);
    const keys = leaseKeysOf(limits);
    if (keys.length === 0) return { headers, release: () => {} };
    const now = performance.now();
    for (const key of keys) this.#hold(key, id, now);
    return {
      headers,
      release: () => {
        // Before the lease is given back, so that it is never renewed after that.
        for (const key of keys) this.#drop(key, id);
        this.#options.counters.release(limits, id);
      },
    };
  }

  /** Redis was away and may have lost every lease. */
  reconnected(): void {
    this.#renew(0);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #ask(limits: InvocationLimits, id: string): Promise<CountersAnswer> {
    try {
      return await this.#options.counters.admit(limits, id);
    } catch (error) {
      this.#options.onProblem(error instanceof Error ? error : new Error(String(error)));
      throw new CloisterError(
        "dependency_unavailable",
        "The quota cannot be checked: the queue cannot be reached",
      );
    }
  }

  /** Callers of one month share what is read for it. */
  #learnMonth(tenantId: string, month: string): Promise<void> {
    const key = `${tenantId} ${month}`;
    let learning = this.#months.get(key);
    if (!learning) {
      learning = this.#readMonth(tenantId, month).finally(() => this.#months.delete(key));
      this.#months.set(key, learning);
    }
    return learning;
  }

  async #readMonth(tenantId: string, month: string): Promise<void> {
    try {
      const total = await this.#options.readMonthTotal(tenantId, month);
      await this.#options.counters.raiseMonth(tenantId, month, total);
    } catch (error) {
      this.#options.onProblem(error instanceof Error ? error : new Error(String(error)));
      throw new CloisterError(
        "dependency_unavailable",
        "What was used this month cannot be read from the database",
      );
    }
  }

  #hold(key: string, id: string, now: number): void {
    let held = this.#leases.get(key);
    if (!held) {
      held = new Map();
      this.#leases.set(key, held);
    }
    held.set(id, now);
    this.#timer ??= setInterval(() => this.#renew(this.#renewMs), this.#renewMs);
  }

  #drop(key: string, id: string): void {
    const held = this.#leases.get(key);
    held?.delete(id);
    if (held?.size === 0) this.#leases.delete(key);
    if (this.#leases.size === 0) this.close();
  }

  /** Renews what was last sure longer ago than `olderThanMs`. */
  #renew(olderThanMs: number): void {
    const now = performance.now();
    for (const [key, held] of this.#leases) {
      const ids: string[] = [];
      for (const [id, sureAtMs] of held) {
        // The oldest come first: what is renewed goes to the end.
        if (now - sureAtMs < olderThanMs) break;
        ids.push(id);
      }
      for (const id of ids) {
        held.delete(id);
        held.set(id, now);
      }
      if (ids.length > 0) this.#options.counters.renew(key, ids).catch(this.#options.onProblem);
    }
  }
}

/** Calls at once end when they end: a second is as good a guess as any. */
function retryAfterS({ refused, month, nowUs, retryAfterMs }: CountersAnswer): number {
  if (typeof refused === "object" && refused.quota === "gbSecondsPerMonth" && month)
    return secondsLeftOf(month.name, nowUs);
  return Math.max(1, Math.ceil(retryAfterMs / 1000));
}
