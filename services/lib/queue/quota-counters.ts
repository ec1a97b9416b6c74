import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Redis } from "ioredis";
import {
  type CountedLimits,
  type InvocationLimits,
  monthOf,
  type Quota,
  type QuotaExcess,
} from "#contracts/quota";
import { bulk, isUnknownScript, PreparedCommands, prepare } from "./prepared-commands.ts";

const LUA = readFileSync(join(import.meta.dirname, "quota.lua"), "utf8");
const SHA = createHash("sha1").update(LUA).digest("hex");
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
  tenantKey(
    tenantId,
    `${owner}bucket:${requests ? `${requests.perSecond}:${requests.burst}` : ""}`,
  );
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
  readonly #commands: PreparedCommands;
  /** What is the same of all calls with these limits. */
  readonly #questions = new WeakMap<InvocationLimits, Question>();

  constructor(redis: Redis, leaseMs: number = LEASE_MS) {
    this.leaseMs = leaseMs;
    redis.defineCommand(COMMAND, { lua: LUA });
    this.#redis = redis as Redis & Scripted;
    this.#commands = new PreparedCommands(redis);
  }

  /** Counts one call and takes its leases, all or nothing. Rejects when Redis cannot be asked. */
  async admit(limits: InvocationLimits, id: string): Promise<CountersAnswer> {
    const question = this.#questionOf(limits);
    const rest = bulk(id) + monthBelieved();
    let raw: unknown;
    try {
      raw = await this.#commands.send("evalsha", question.bySha + rest);
    } catch (error) {
      if (!isUnknownScript(error)) throw error;
      raw = await this.#commands.send("eval", question.byText + rest);
    }
    return admissionAnswer(limits, raw as Raw);
  }

  /** Gives a call's leases back. Nobody waits: what is lost ends by itself. */
  release(limits: InvocationLimits, id: string): void {
    for (const key of leaseKeysOf(limits))
      this.#commands.send("zrem", prepare(["zrem", key], 1) + bulk(id)).catch(() => {});
  }

  #questionOf(limits: InvocationLimits): Question {
    let question = this.#questions.get(limits);
    if (!question) {
      question = questionOf(limits, this.leaseMs);
      this.#questions.set(limits, question);
    }
    return question;
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
      this.leaseMs,
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

/** The script's command as far as it is the same for each call: it lacks the id and the month. */
interface Question {
  bySha: string;
  byText: string;
}

const LACKING = 4;

function questionOf(limits: InvocationLimits, leaseMs: number): Question {
  const { tenantId, functionId, tenant, function: own } = limits;
  const keys = [rateKey(tenantId, tenant), leasesKey(tenantId), monthsKey(tenantId)];
  if (own.requests || own.concurrency !== undefined)
    keys.push(rateKey(tenantId, own, `${functionId}:`), functionLeasesKey(tenantId, functionId));
  const rest: Argument[] = [
    keys.length,
    ...keys,
    "admit",
    leaseMs,
    ...countedArguments(tenant),
    tenant.gbSecondsPerMonth === undefined ? "" : nano(tenant.gbSecondsPerMonth),
    ...countedArguments(own),
  ];
  return {
    bySha: prepare(["evalsha", SHA, ...rest], LACKING),
    byText: prepare(["eval", LUA, ...rest], LACKING),
  };
}

/** The month by this machine's clock, UTC: the script takes its word for it as long as Redis's clock is within its bounds. */
let believed = { fromMs: 0, untilMs: 0, text: "" };

function monthBelieved(): string {
  const now = Date.now();
  if (now >= believed.fromMs && now < believed.untilMs) return believed.text;
  const date = new Date(now);
  const fromMs = Date.UTC(date.getUTCFullYear(), date.getUTCMonth());
  const untilMs = Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1);
  const text = bulk(monthOf(now)) + bulk(fromMs / 1000) + bulk(untilMs / 1000);
  believed = { fromMs, untilMs, text };
  return text;
}

const left = (
  limits: CountedLimits,
  requests: number,
  fullAfterMs: number,
  concurrency: number,
): Left => ({
  ...(limits.requests ? { requests: { left: requests, fullAfterMs } } : {}),
  ...(limits.concurrency === undefined ? {} : { concurrency }),
});

/** Redis's numbers, and texts as bytes. */
type Raw = (number | Buffer)[];

function admissionAnswer(limits: InvocationLimits, raw: Raw): CountersAnswer {
  const number = (at: number): number => Number(raw[at] ?? 0);
  const refused = refusalOf(limits, number(0));
  const { gbSecondsPerMonth } = limits.tenant;
  return {
    ...(refused === undefined ? {} : { refused }),
    retryAfterMs: number(1),
    tenant: left(limits.tenant, number(5), number(6), number(7)),
    function: left(limits.function, number(8), number(9), number(10)),
    ...(gbSecondsPerMonth === undefined
      ? {}
      : {
          month: { name: String(raw[4]) || monthOf(number(2) / 1000), gbSeconds: number(3) / NANO },
        }),
    nowUs: number(2),
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
