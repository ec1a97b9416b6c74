import { z } from "zod";
import {
  type FunctionConfig,
  LIMITS,
  type Path,
  pathSchema,
  type VersionSpec,
} from "./function.ts";
import { demandOf, type TenantPolicy, type Tier } from "./placement.ts";

/** A limit that may be absent: null is unlimited. */
const limit = <T>(schema: z.ZodType<T>) => schema.nullable();
const whole = (min: number, max: number) => limit(z.number().int().min(min).max(max));

/**
 * What a tenant may have. Every field is a number or null, which is unlimited, so that a typing error in a limit never means "no limit":
 * unknown fields are refused.
 */
export const quotaSchema = z.strictObject({
  /** Calls a second in the long run; parts of one too, e.g. 0.5 for one call in two seconds. */
  requestsPerSecond: limit(z.number().min(0.001).max(100_000)),
  /** Calls that may come at once after a rest. Null: what comes in one second, at least one. */
  burst: whole(1, 1_000_000),
  /** Calls under way at once, those that wait for a sandbox counted in. */
  concurrency: whole(0, 1_000_000),
  /** Of one function, MiB. */
  memoryMb: whole(64, 4096),
  /** Memory times billed time, from the first of a month to the next, UTC. */
  gbSecondsPerMonth: limit(z.number().min(0).max(1_000_000_000)),
  functions: whole(0, 1_000_000),
  /** Of one bundle as it is sent. */
  bundleBytes: whole(1, LIMITS.bundleBytes),
  /** Of one function, ms. */
  timeoutMs: whole(1, 900_000),
  /** Asynchronous calls that were accepted and have not ended. */
  asyncBacklog: whole(0, 10_000_000),
  paths: limit(
    z
      .array(pathSchema)
      .min(1)
      .max(pathSchema.options.length)
      .refine((paths) => new Set(paths).size === paths.length, "each path once"),
  ),
  /** Weaker than this nothing runs, whatever a function asks for. */
  minimumIsolation: limit(pathSchema),
});
export type Quota = z.infer<typeof quotaSchema>;
export type QuotaField = keyof Quota;

export const QUOTA_FIELDS = Object.keys(quotaSchema.shape) as QuotaField[];

export type TenantQuota = { [F in QuotaField]?: Quota[F] | undefined };

/** Whether a function may run at all under these two. */
export const isPossible = ({ paths, minimumIsolation }: TenantQuota): boolean =>
  minimumIsolation !== "microvm" || !paths || paths.includes("microvm");

/** What an administrator sets: a field that is left out is the plan's. */
export const tenantQuotaSchema = quotaSchema.partial().refine(isPossible, {
  path: ["paths"],
  message: "minimumIsolation is microvm, so paths must hold microvm",
});

/** What a tenant sets for one function, below its own. A field that is left out, or null, is the tenant's. */
export const functionQuotaSchema = quotaSchema
  .pick({
    requestsPerSecond: true,
    burst: true,
    concurrency: true,
    memoryMb: true,
    timeoutMs: true,
  })
  .partial()
  .refine(({ requestsPerSecond, burst }) => burst == null || requestsPerSecond != null, {
    path: ["burst"],
    message: "burst needs requestsPerSecond beside it",
  });
export type FunctionQuota = z.infer<typeof functionQuotaSchema>;
export const FUNCTION_QUOTA_FIELDS = Object.keys(
  functionQuotaSchema.shape,
) as (keyof FunctionQuota)[];

/** Every field, and no limit. */
export const UNLIMITED: Quota = {
  requestsPerSecond: null,
  burst: null,
  concurrency: null,
  memoryMb: null,
  gbSecondsPerMonth: null,
  functions: null,
  bundleBytes: null,
  timeoutMs: null,
  asyncBacklog: null,
  paths: null,
  minimumIsolation: null,
};

/** What holds where an administrator has set nothing (docs/quotas.md). The tenant of the first start is trusted. */
export const PLANS: Record<Tier, Quota> = {
  trusted: UNLIMITED,
  standard: {
    ...UNLIMITED,
    requestsPerSecond: 1000,
    burst: 2000,
    concurrency: 1000,
    gbSecondsPerMonth: 4_000_000,
    functions: 1000,
    asyncBacklog: 100_000,
  },
  untrusted: {
    ...UNLIMITED,
    requestsPerSecond: 100,
    burst: 200,
    concurrency: 100,
    memoryMb: 1024,
    gbSecondsPerMonth: 400_000,
    functions: 100,
    timeoutMs: 300_000,
    asyncBacklog: 10_000,
    minimumIsolation: "microvm",
  },
};

/** A plan with what was set in its place. */
export function planned(tier: Tier, own: TenantQuota): Quota {
  const set = Object.entries(own).filter(([, value]) => value !== undefined);
  return { ...PLANS[tier], ...(Object.fromEntries(set) as Partial<Quota>) };
}

const burstOf = (requestsPerSecond: number): number => Math.max(1, Math.ceil(requestsPerSecond));

/** What holds for a tenant: what was set for it, and its plan where nothing was. */
export function effectiveQuota(tier: Tier, own: TenantQuota): Quota {
  const merged = planned(tier, own);
  const { requestsPerSecond } = merged;
  // A plan's burst belongs to the plan's rate.
  const burst =
    own.burst === undefined && own.requestsPerSecond !== undefined ? null : merged.burst;
  return {
    ...merged,
    burst: requestsPerSecond === null ? null : (burst ?? burstOf(requestsPerSecond)),
    // The plan's paths or minimum may contradict the other one that was set: the stronger of the two holds.
    paths: isPossible(merged) ? merged.paths : ["microvm"],
  };
}

/** The fields in which a function would have more than its tenant. */
export const beyondTenant = (tenant: Quota, own: FunctionQuota): (keyof FunctionQuota)[] =>
  FUNCTION_QUOTA_FIELDS.filter((field) => {
    const [mine, theirs] = [own[field], tenant[field]];
    return typeof mine === "number" && theirs !== null && mine > theirs;
  });

export type EffectiveFunctionQuota = { [F in keyof FunctionQuota]-?: Quota[F] };

const lower = (one: number | null, other: number | null | undefined): number | null =>
  typeof other !== "number" ? one : one === null ? other : Math.min(one, other);

/** What holds for a function: never more than its tenant has, also when the tenant's was lowered later. */
export function effectiveFunctionQuota(tenant: Quota, own: FunctionQuota): EffectiveFunctionQuota {
  const { requestsPerSecond } = own;
  const burst = requestsPerSecond == null ? null : (own.burst ?? burstOf(requestsPerSecond));
  return {
    requestsPerSecond: lower(tenant.requestsPerSecond, requestsPerSecond),
    burst: lower(tenant.burst, burst),
    concurrency: lower(tenant.concurrency, own.concurrency),
    memoryMb: lower(tenant.memoryMb, own.memoryMb),
    timeoutMs: lower(tenant.timeoutMs, own.timeoutMs),
  };
}

/** Rate and calls at once, as they are counted. */
export interface CountedLimits {
  requests?: { perSecond: number; burst: number };
  concurrency?: number;
}

/** Whose quota it is. */
export type QuotaOwner = "tenant" | "function";

/** A quota that is used up, or that something would go over. */
export interface QuotaExcess {
  quota: QuotaField;
  of: QuotaOwner;
  limit: number | string;
}

/** What one call of a function is held to. There is none where nothing limits it. */
export interface InvocationLimits {
  tenantId: string;
  functionId: string;
  tenant: CountedLimits & { gbSecondsPerMonth?: number };
  function: CountedLimits;
  /** The version itself asks for more than is allowed: none of its calls may run. */
  beyond?: QuotaExcess;
}

function counted(quota: {
  requestsPerSecond?: number | null | undefined;
  burst?: number | null | undefined;
  concurrency?: number | null | undefined;
}): CountedLimits {
  const { requestsPerSecond: perSecond, burst, concurrency } = quota;
  return {
    ...(typeof perSecond === "number"
      ? { requests: { perSecond, burst: burst ?? burstOf(perSecond) } }
      : {}),
    ...(typeof concurrency === "number" ? { concurrency } : {}),
  };
}

/** What a tenant allows a function: placement's part, its quota, and what was set for the function. */
export interface Allowed {
  policy: TenantPolicy;
  quota: Quota;
  own: FunctionQuota;
}

/** The part of a quota that placement obeys. */
export const policyOf = (tier: Tier, { minimumIsolation, paths }: Quota): TenantPolicy => ({
  tier,
  ...(minimumIsolation ? { minimumIsolation } : {}),
  ...(paths ? { paths } : {}),
});

/** What calls of a function are held to; undefined where nothing limits them, so that no call pays for asking. */
export function invocationLimits(
  { tenantId, functionId, config }: Pick<VersionSpec, "tenantId" | "functionId" | "config">,
  allowed: Allowed,
): InvocationLimits | undefined {
  const beyond = beyondQuota(config, allowed);
  const { gbSecondsPerMonth } = allowed.quota;
  const limits: InvocationLimits = {
    tenantId,
    functionId,
    tenant: {
      ...counted(allowed.quota),
      ...(gbSecondsPerMonth === null ? {} : { gbSecondsPerMonth }),
    },
    function: counted(allowed.own),
    ...(beyond ? { beyond } : {}),
  };
  const none = [limits.tenant, limits.function].every((one) => Object.keys(one).length === 0);
  return none && !beyond ? undefined : limits;
}

export const pathsExcess = (paths: readonly Path[]): QuotaExcess => ({
  quota: "paths",
  of: "tenant",
  limit: paths.join(", "),
});

/** The quota that a function's configuration goes over, if any. */
export function beyondQuota(
  config: FunctionConfig,
  { policy, quota: tenant, own }: Allowed,
): QuotaExcess | undefined {
  for (const quota of ["memoryMb", "timeoutMs"] as const)
    for (const [of, limits] of [
      ["tenant", tenant],
      ["function", own],
    ] as const) {
      const most = limits[quota];
      if (typeof most === "number" && config[quota] > most) return { quota, of, limit: most };
    }
  const { isolation, runtime } = config;
  const demand = demandOf({ ...policy, isolation, runtime, wanted: undefined });
  // The paths that are allowed leave out the only one that is strong enough; other refusals are of the caller's or a node's making.
  const excluded = "refused" in demand && demand.refused === "quota_exceeded";
  return excluded && tenant.paths ? pathsExcess(tenant.paths) : undefined;
}

/** A month as `2026-11`, UTC. */
export const monthOf = (atMs: number): string => new Date(atMs).toISOString().slice(0, 7);
