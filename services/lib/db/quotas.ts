import { and, count, eq, isNull, max, ne, sql } from "drizzle-orm";
import {
  type Allowed,
  effectiveQuota,
  type FunctionQuota,
  PLANS,
  policyOf,
  type Quota,
  type TenantQuota,
} from "#contracts/quota";
import { CloisterError } from "#errors/catalogue";
import { type Origin, writeAudit } from "./audit.ts";
import type { Database, Transaction } from "./database.ts";
import { checkExpected, type Expected, type Revised } from "./revision.ts";
import {
  bundles,
  functionQuotas,
  functions,
  type TenantTier,
  tenantQuotas,
  tenants,
  versions,
} from "./schema.ts";

/** A tenant's quota as it was set, with what holds. */
export interface StoredQuota {
  tenantId: string;
  tier: TenantTier;
  own: TenantQuota;
  plan: Quota;
  quota: Quota;
  /** Rises with each change; 0 while nothing was ever set. */
  version: number;
}

/** Names a quota's state for If-Match. */
export const quotaRevision = (ownerId: string, version: number): Revised => ({
  id: `${ownerId}.quota`,
  revision: version,
});

/** What a change rests on. */
export interface QuotaChange {
  /** The key that asks. */
  keyId: string;
  expected: Expected;
  /** The asker does not say which state it has seen. */
  blind: boolean;
}

/** Whoever overwrites blindly may not destroy what another key changed within this time, ms. */
export const BLIND_CHANGE_MS = 60_000;

export async function readTenantQuota(
  db: Pick<Database, "orm">,
  tenantId: string,
): Promise<StoredQuota | undefined> {
  const [row] = await db.orm
    .select({ tier: tenants.tier, limits: tenantQuotas.limits, version: tenantQuotas.version })
    .from(tenants)
    .leftJoin(tenantQuotas, eq(tenantQuotas.tenantId, tenants.id))
    .where(eq(tenants.id, tenantId));
  return row && storedQuota(tenantId, row.tier, row.limits ?? {}, row.version ?? 0);
}

const storedQuota = (
  tenantId: string,
  tier: TenantTier,
  own: TenantQuota,
  version: number,
): StoredQuota => ({
  tenantId,
  tier,
  own,
  plan: PLANS[tier],
  quota: effectiveQuota(tier, own),
  version,
});

/**
 * Replaces a tenant's quota, which goes into the audit log. Throws `precondition_failed` when it is not what the asker has read, and `precondition_required` when the asker has read
 * nothing and another key has just changed it. Undefined when there is no such tenant.
 */
export async function replaceTenantQuota(
  db: Database,
  tenantId: string,
  own: TenantQuota,
  change: QuotaChange & { origin: Origin },
): Promise<StoredQuota | undefined> {
  return db.orm.transaction(async (tx) => {
    const [tenant] = await tx
      .select({ tier: tenants.tier })
      .from(tenants)
      .where(eq(tenants.id, tenantId))
      .for("no key update");
    if (!tenant) return undefined;
    const [before] = await tx
      .select({ ...lastChange(tenantQuotas), limits: tenantQuotas.limits })
      .from(tenantQuotas)
      .where(eq(tenantQuotas.tenantId, tenantId));
    const version = nextVersion(tenantId, before, change);
    const set = { limits: own, version, changedBy: change.keyId, changedAt: sql`now()` };
    await tx
      .insert(tenantQuotas)
      .values({ tenantId, ...set })
      .onConflictDoUpdate({ target: tenantQuotas.tenantId, set });
    await writeAudit(tx, change.origin, {
      action: "quota.replace",
      tenantId,
      subject: tenantId,
      before: before?.limits ?? {},
      after: own,
    });
    return storedQuota(tenantId, tenant.tier, own, version);
  });
}

/** What a tenant has set for one of its functions; nothing at version 0. */
export interface StoredFunctionQuota {
  own: FunctionQuota;
  version: number;
}

export async function readFunctionQuota(
  db: Database,
  functionId: string,
): Promise<StoredFunctionQuota> {
  const [row] = await db.orm
    .select({ own: functionQuotas.limits, version: functionQuotas.version })
    .from(functionQuotas)
    .where(eq(functionQuotas.functionId, functionId));
  return row ?? { own: {}, version: 0 };
}

/** Replaces a function's quota; throws as `replaceTenantQuota` does. Undefined when there is no such function. */
export async function replaceFunctionQuota(
  db: Database,
  functionId: string,
  own: FunctionQuota,
  change: QuotaChange,
): Promise<StoredFunctionQuota | undefined> {
  return db.orm.transaction(async (tx) => {
    const [found] = await tx
      .select({ id: functions.id })
      .from(functions)
      .where(and(eq(functions.id, functionId), isNull(functions.deletedAt)))
      .for("no key update");
    if (!found) return undefined;
    const [before] = await tx
      .select(lastChange(functionQuotas))
      .from(functionQuotas)
      .where(eq(functionQuotas.functionId, functionId));
    const version = nextVersion(functionId, before, change);
    const set = { limits: own, version, changedBy: change.keyId, changedAt: sql`now()` };
    await tx
      .insert(functionQuotas)
      .values({ functionId, ...set })
      .onConflictDoUpdate({ target: functionQuotas.functionId, set });
    return { own, version };
  });
}

const lastChange = ({
  version,
  changedBy,
  changedAt,
}: typeof tenantQuotas | typeof functionQuotas) => ({
  version,
  changedBy,
  agoMs: sql<number>`(extract(epoch from now() - ${changedAt}) * 1000)::float8`,
});

function nextVersion(
  ownerId: string,
  before: { version: number; changedBy: string; agoMs: number } | undefined,
  { keyId, expected, blind }: QuotaChange,
): number {
  const version = before?.version ?? 0;
  checkExpected(quotaRevision(ownerId, version), expected);
  if (blind && before && before.changedBy !== keyId && before.agoMs < BLIND_CHANGE_MS)
    throw new CloisterError(
      "precondition_required",
      `Another key changed this quota less than ${BLIND_CHANGE_MS / 1000} s ago`,
    );
  return version + 1;
}

/**
 * Throws `quota_exceeded` when `name` would be a function more than the tenant may have. Publications of one tenant wait for each other here, so that two
 * at once cannot both be the last.
 */
export async function refuseMoreFunctions(
  tx: Transaction,
  tenantId: string,
  name: string,
  most: number,
): Promise<void> {
  await tx
    .select({ id: tenants.id })
    .from(tenants)
    .where(eq(tenants.id, tenantId))
    .for("no key update");
  const live = and(eq(functions.tenantId, tenantId), isNull(functions.deletedAt));
  const [same] = await tx
    .select({ id: functions.id })
    .from(functions)
    .where(and(live, eq(functions.name, name)));
  if (same) return;
  const [others] = await tx
    .select({ count: count() })
    .from(functions)
    .where(and(live, ne(functions.name, name)));
  if ((others?.count ?? 0) >= most)
    throw new CloisterError(
      "quota_exceeded",
      `The tenant has ${others?.count} functions, and its quota functions allows ${most}`,
      { quota: "functions", of: "tenant", limit: most },
    );
}

/** What is published now; null where there is nothing. */
export interface PublishedUse {
  functions: number;
  /** The largest of the current versions. */
  memoryMb: number | null;
  timeoutMs: number | null;
  bundleBytes: number | null;
}

export async function readPublishedUse(db: Database, tenantId: string): Promise<PublishedUse> {
  const largest = (field: "memoryMb" | "timeoutMs") =>
    sql<number | null>`max((${versions.config} ->> ${sql.raw(`'${field}'`)})::int)`;
  const [row] = await db.orm
    .select({
      functions: count(),
      memoryMb: largest("memoryMb"),
      timeoutMs: largest("timeoutMs"),
      bundleBytes: max(bundles.sizeBytes),
    })
    .from(functions)
    .innerJoin(
      versions,
      and(eq(versions.functionId, functions.id), eq(versions.number, functions.currentVersion)),
    )
    .innerJoin(bundles, eq(bundles.digest, versions.bundleDigest))
    .where(and(eq(functions.tenantId, tenantId), isNull(functions.deletedAt)));
  return row ?? { functions: 0, memoryMb: null, timeoutMs: null, bundleBytes: null };
}

/** What a deploy of `name` is held to: the tenant's quota, and what was set for the function if there is one. */
export async function readDeployQuota(
  db: Database,
  tenantId: string,
  name: string,
): Promise<Allowed | undefined> {
  const stored = await readTenantQuota(db, tenantId);
  if (!stored) return undefined;
  const [row] = await db.orm
    .select({ own: functionQuotas.limits })
    .from(functions)
    .innerJoin(functionQuotas, eq(functionQuotas.functionId, functions.id))
    .where(
      and(eq(functions.tenantId, tenantId), eq(functions.name, name), isNull(functions.deletedAt)),
    );
  const { tier, quota } = stored;
  return { policy: policyOf(tier, quota), quota, own: row?.own ?? {} };
}
