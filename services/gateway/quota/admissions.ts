import type { Path } from "#contracts/function";
import { type InvocationLimits, pathsExcess } from "#contracts/quota";
import type { CallTarget } from "#db/functions";
import { CloisterError } from "#errors/catalogue";
import {
  type CountersAnswer,
  type Left,
  leaseKeysOf,
  type QuotaCounters,
} from "#queue/quota-counters";
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

/** What is used up for a while: until then the counters would say the same. */
interface Shut {
  untilMs: number;
  answer: CountersAnswer;
  askedMs: number;
}

/** Longest that the counters are not asked again: Redis may have lost what made them refuse, ms. */
const LONGEST_SHUT_MS = 1000;

/**
 * The one door to an invocation. What is counted is shared by all gateways, and without Redis nobody is let in who has limits.
 */
export class Admissions {
  readonly #options: AdmissionsOptions;
  /** At least one renewal may be lost before a lease ends, ms. */
  readonly #renewMs: number;
  /** Leases of calls under way here, by key and id, with when they were last sure, on performance.now()'s clock, ms. */
  readonly #leases = new Map<string, Map<string, number>>();
  readonly #months = new Map<string, Promise<void>>();
  /** By the limits themselves: when they change there are others in their place. */
  readonly #shut = new WeakMap<InvocationLimits, Shut>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: AdmissionsOptions) {
    this.#options = options;
    this.#renewMs = options.counters.leaseMs / 4;
  }

  /**
   * Whatever may start an invocation comes through here. Undefined when nothing limits it: then it may run at once. Throws or rejects with
   * `quota_exceeded`, or with `dependency_unavailable`.
   */
  enter(
    { limits, policy: { paths } }: Pick<CallTarget, "limits" | "policy">,
    wantedPath: Path | undefined,
    id: string,
  ): Promise<Admission> | undefined {
    // A wish for less than the policy allows is placement's to refuse, with another code.
    if (wantedPath === "microvm" && paths && !paths.includes("microvm"))
      throw quotaExceeded(pathsExcess(paths));
    return limits && this.admit(limits, id);
  }

  /** Throws `quota_exceeded` where that is known without asking anybody, so that a flood's bodies need not be read. */
  refuseKnown(limits: InvocationLimits): void {
    if (limits.beyond) throw quotaExceeded(limits.beyond);
    const shut = this.#shut.get(limits);
    if (!shut) return;
    const now = performance.now();
    if (now < shut.untilMs) throw refusal(limits, agedBy(now - shut.askedMs, shut));
  }

  /** Rejects with `quota_exceeded`, or with `dependency_unavailable` when it cannot be told. */
  async admit(limits: InvocationLimits, id: string): Promise<Admission> {
    this.refuseKnown(limits);
    const askedMs = performance.now();
    let answer = await this.#ask(limits, id);
    if (answer.refused === "month" && answer.month) {
      await this.#learnMonth(limits.tenantId, answer.month.name);
      answer = await this.#ask(limits, id);
    }
    const { refused } = answer;
    if (refused === "month")
      throw new CloisterError("dependency_unavailable", "What was used this month is not known");
    if (refused) {
      const untilMs = askedMs + shutForMs(answer);
      if (untilMs > performance.now()) this.#shut.set(limits, { untilMs, answer, askedMs });
      throw refusal(limits, answer);
    }
    const headers = rateLimitHeaders(limits, answer);
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

function refusal(limits: InvocationLimits, answer: CountersAnswer): CloisterError {
  if (typeof answer.refused !== "object") throw new Error("The call was let in.");
  return quotaExceeded(answer.refused, retryAfterS(answer), rateLimitHeaders(limits, answer));
}

/**
 * How long after it was asked for a refusal is sure to be that of every other call: a flood over its rate then costs Redis nothing. Nobody is refused whom
 * the counters would let in: they answered later than they were asked, and the wait is rounded up to the next ms.
 */
function shutForMs({ refused, retryAfterMs }: CountersAnswer): number {
  if (typeof refused !== "object") return 0;
  if (refused.quota === "requestsPerSecond") return Math.min(retryAfterMs - 1, LONGEST_SHUT_MS);
  return refused.quota === "gbSecondsPerMonth" ? LONGEST_SHUT_MS : 0;
}

/** The same answer some ms later, as far as it can be known without asking. */
function agedBy(ms: number, { answer }: Shut): CountersAnswer {
  const aged = (left: Left): Left =>
    left.requests
      ? {
          ...left,
          requests: {
            left: left.requests.left,
            fullAfterMs: Math.max(1, left.requests.fullAfterMs - ms),
          },
        }
      : left;
  return {
    ...answer,
    retryAfterMs: Math.max(1, answer.retryAfterMs - ms),
    tenant: aged(answer.tenant),
    function: aged(answer.function),
    nowUs: answer.nowUs + ms * 1000,
  };
}

/** Calls at once end when they end: a second is as good a guess as any. */
function retryAfterS({ refused, month, nowUs, retryAfterMs }: CountersAnswer): number {
  if (typeof refused === "object" && refused.quota === "gbSecondsPerMonth" && month)
    return secondsLeftOf(month.name, nowUs);
  return Math.max(1, Math.ceil(retryAfterMs / 1000));
}
