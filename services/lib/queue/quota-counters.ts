import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Redis } from "ioredis";
import type { CountedLimits, InvocationLimits, Quota, QuotaExcess } from "#contracts/quota";

const LUA = readFileSync(join(import.meta.dirname, "quota.lua"), "utf8");
const COMMAND = "cloisterQuota";

type Argument = string | number;
interface Scripted {
  [COMMAND](keys: number, ...rest: Argument[]): Promise<unknown>;
}

/** A gateway that died holds its leases this long; a call that lasts has its own renewed well before, ms. */
export const LEASE_MS = 15_000;

const NANO = 1e9;

/** One hash tag per tenant, so that a cluster keeps what one script touches together. */
const tenantKey = (tenantId: string, what: string): string =>
  `cloister:quota:{${tenantId}}:${what}`;
/** A rate is kept under its own numbers: one that is changed begins with a full burst, and the former is forgotten once it says nothing. */
const rateKey = (tenantId: string, { requests }: CountedLimits, owner = ""): string =>
  tenantKey(tenantId, `${owner}rate:${requests ? `${requests.perSecond}:${requests.burst}` : ""}`);
const leasesKey = (tenantId: string): string => tenantKey(tenantId, "leases");
/** Hash of months (`2026-11`) to nano-GB-seconds. */
const monthsKey = (tenantId: string): string => tenantKey(tenantId, "months");
const functionLeasesKey = (tenantId: string, functionId: string): string =>
  tenantKey(tenantId, `${functionId}:leases`);

/** What is left of one owner's limits. */
export interface Left {
  /** Calls that may come now, and how long until all of the burst may again, ms. Absent without a rate. */
  requests?: { left: number; fullAfterMs: number };
  concurrency?: number;
}

/** What the counters say to one call. */
export interface CountersAnswer {
  /** Absent when the call is admitted. `month` when Redis does not know what was used in it. */
  refused?: QuotaExcess | "month";
  /** When it is worth while to ask again, ms. */
  retryAfterMs: number;
  tenant: Left;
  function: Left;
  /** The month of now and what was used in it, GB-seconds. Absent without a limit. */
  month?: { name: string; gbSeconds: number };
  /** Redis's clock: microseconds since 1970. */
  nowUs: number;
}

/** What a tenant uses at this moment. */
export interface CountersUse {
  burst: number;
  concurrency: number;
  month: string;
  /** Undefined when Redis does not know it. */
  gbSeconds: number | undefined;
}

/** Rates, leases and the month's GB-seconds of all tenants, in Redis. All operations are atomic, and each is one round trip. */
export class QuotaCounters {
  readonly leaseMs: number;
  readonly #redis: Redis & Scripted;

  constructor(redis: Redis, leaseMs: number = LEASE_MS) {
    this.leaseMs = leaseMs;
    redis.defineCommand(COMMAND, { lua: LUA });
    this.#redis = redis as Redis & Scripted;
  }

  /** Counts one call and takes its leases, all or nothing. Rejects when Redis cannot be asked. */
  async admit(limits: InvocationLimits, id: string): Promise<CountersAnswer> {
    const { tenantId, functionId, tenant } = limits;
    const answer = (await this.#redis[COMMAND](
      5,
      rateKey(tenantId, tenant),
      leasesKey(tenantId),
      rateKey(tenantId, limits.function, `${functionId}:`),
      functionLeasesKey(tenantId, functionId),
      monthsKey(tenantId),
      "admit",
      this.leaseMs,
      ...countedArguments(tenant),
      ...countedArguments(limits.function),
      tenant.gbSecondsPerMonth === undefined ? "" : nano(tenant.gbSecondsPerMonth),
      id,
    )) as (number | string)[];
    return admissionAnswer(limits, answer);
  }

  /** Gives a call's leases back. Nobody waits: what is lost ends by itself. */
  release(limits: InvocationLimits, id: string): void {
    for (const key of leaseKeysOf(limits)) this.#redis.zrem(key, id).catch(() => {});
  }

  /** Keeps leases, or makes them again where Redis has lost them. */
  async renew(key: string, ids: readonly string[]): Promise<void> {
    await this.#redis[COMMAND](1, key, "renew", this.leaseMs, ...ids);
  }

  /**
   * Adds what an invocation has used to its tenant's month (`2026-11`, UTC). Does nothing while Redis does not know the month: the first call that needs
   * it makes it anew from the records. `month` is that of the record's `acceptedAtMs`, by which the records are added up.
   */
  async addGbSeconds(tenantId: string, month: string, gbSeconds: number): Promise<void> {
    await this.#redis[COMMAND](1, monthsKey(tenantId), "spend", month, nano(gbSeconds));
  }

  /** Sets a month to what the records say, unless more is known to be used already. */
  async raiseMonth(tenantId: string, month: string, gbSeconds: number): Promise<void> {
    await this.#redis[COMMAND](1, monthsKey(tenantId), "raise", month, nano(gbSeconds));
  }

  async readUse(tenantId: string, quota: Quota): Promise<CountersUse> {
    const { requestsPerSecond: perSecond, burst } = quota;
    const requests = perSecond === null || burst === null ? undefined : { perSecond, burst };
    const answer = (await this.#redis[COMMAND](
      3,
      rateKey(tenantId, { ...(requests ? { requests } : {}) }),
      leasesKey(tenantId),
      monthsKey(tenantId),
      "use",
      requests ? intervalUs(requests.perSecond) : "",
      requests?.burst ?? "",
    )) as [number, number, string, string];
    const [spent, concurrency, used, month] = answer;
    return {
      burst: spent,
      concurrency,
      month,
      gbSeconds: used === "" ? undefined : Number(used) / NANO,
    };
  }
}

/** Where a call's leases are; none where nothing limits calls at once. */
export function leaseKeysOf(limits: InvocationLimits): string[] {
  const keys: string[] = [];
  if (limits.tenant.concurrency !== undefined) keys.push(leasesKey(limits.tenantId));
  if (limits.function.concurrency !== undefined)
    keys.push(functionLeasesKey(limits.tenantId, limits.functionId));
  return keys;
}

const intervalUs = (perSecond: number): number => 1e6 / perSecond;

/** GB-seconds as Redis counts them: whole, so that adding up never drifts. */
const nano = (gbSeconds: number): string => BigInt(Math.round(gbSeconds * NANO)).toString();

const countedArguments = ({ requests, concurrency }: CountedLimits): Argument[] => [
  requests ? intervalUs(requests.perSecond) : "",
  requests?.burst ?? "",
  concurrency ?? "",
];

const left = (
  limits: CountedLimits,
  requests: number,
  fullAfterMs: number,
  concurrency: number,
): Left => ({
  ...(limits.requests ? { requests: { left: requests, fullAfterMs } } : {}),
  ...(limits.concurrency === undefined ? {} : { concurrency }),
});

function admissionAnswer(limits: InvocationLimits, raw: (number | string)[]): CountersAnswer {
  const number = (at: number): number => Number(raw[at]);
  const refused = refusalOf(limits, number(0));
  const month = String(raw[8]);
  return {
    ...(refused === undefined ? {} : { refused }),
    retryAfterMs: number(1),
    tenant: left(limits.tenant, number(2), number(3), number(4)),
    function: left(limits.function, number(5), number(6), number(7)),
    ...(month === "" ? {} : { month: { name: month, gbSeconds: number(9) / NANO } }),
    nowUs: number(10) * 1e6 + number(11),
  };
}

function refusalOf(
  { tenant, function: own }: InvocationLimits,
  code: number,
): CountersAnswer["refused"] {
  const excess = (quota: QuotaExcess["quota"], of: QuotaExcess["of"], limit = 0): QuotaExcess => ({
    quota,
    of,
    limit,
  });
  switch (code) {
    case 0:
      return undefined;
    case 1:
      return excess("requestsPerSecond", "tenant", tenant.requests?.perSecond);
    case 2:
      return excess("requestsPerSecond", "function", own.requests?.perSecond);
    case 3:
      return excess("concurrency", "tenant", tenant.concurrency);
    case 4:
      return excess("concurrency", "function", own.concurrency);
    case 5:
      return excess("gbSecondsPerMonth", "tenant", tenant.gbSecondsPerMonth);
    case 6:
      return "month";
    default:
      throw new Error(`Redis answered ${code} to a question about a quota.`);
  }
}
