import { and, asc, desc, eq, gt, isNull, sql } from "drizzle-orm";
import type { FunctionConfig, VersionSpec } from "#contracts/function";
import { newId } from "#contracts/ids";
import { type BundleFindings, needsOf } from "#contracts/needs";
import type { TenantPolicy } from "#contracts/placement";
import {
  effectiveQuota,
  type InvocationLimits,
  invocationLimits,
  policyOf,
} from "#contracts/quota";
import type { Database } from "./database.ts";
import { refuseMoreFunctions } from "./quotas.ts";
import {
  bundles,
  functionQuotas,
  functions,
  type TenantTier,
  tenantQuotas,
  tenants,
  versions,
} from "./schema.ts";

/** A function and the version it stands for now. */
export interface FunctionSummary {
  id: string;
  name: string;
  version: number;
  versionId: string;
  digest: string;
  sizeBytes: number;
  config: FunctionConfig;
  createdAt: Date;
  updatedAt: Date;
}

export interface VersionSummary {
  versionId: string;
  version: number;
  digest: string;
  sizeBytes: number;
  config: FunctionConfig;
  createdAt: Date;
}

/** What a call needs to know of the version it meets. */
export interface CallTarget extends VersionSpec {
  public: boolean;
  tier: TenantTier;
  policy: TenantPolicy;
  /** What its calls are held to; absent where nothing limits them. */
  limits?: InvocationLimits;
}

export interface BundleToStore {
  digest: string;
  content: Buffer;
  unpackedBytes: number;
}

/** What is stored of a version beside its bundle and configuration. */
export interface VersionDetails {
  /** What a look at the bundle found. */
  findings?: BundleFindings;
  /** Functions the tenant may have; null is as many as it likes. */
  maxFunctions?: number | null;
}

const live = (tenantId: string, name: string) =>
  and(eq(functions.tenantId, tenantId), eq(functions.name, name), isNull(functions.deletedAt));

/**
 * Stores the bundle and makes the function's next version, all or nothing; callers at the same time get different numbers. Throws `quota_exceeded`
 * where it would be one more than the tenant's `maxFunctions`.
 */
export async function publishVersion(
  db: Database,
  tenantId: string,
  config: FunctionConfig,
  bundle: BundleToStore,
  { findings, maxFunctions = null }: VersionDetails = {},
): Promise<FunctionSummary> {
  return db.orm.transaction(async (tx) => {
    if (maxFunctions !== null) await refuseMoreFunctions(tx, tenantId, config.name, maxFunctions);
    await tx
      .insert(bundles)
      .values({ ...bundle, sizeBytes: bundle.content.length })
      // The row is locked until the version that needs it is there, so that no clean-up comes between.
      .onConflictDoUpdate({ target: bundles.digest, set: { touchedAt: sql`now()` } });
    const [row] = await tx
      .insert(functions)
      .values({
        id: newId("fn"),
        tenantId,
        name: config.name,
        currentVersion: 1,
        public: config.public,
      })
      .onConflictDoUpdate({
        target: [functions.tenantId, functions.name],
        targetWhere: sql`deleted_at is null`,
        set: {
          // The locked row's own number: a look at versions would see the past of a publication that has just ended.
          currentVersion: sql`${functions.currentVersion} + 1`,
          public: config.public,
          updatedAt: sql`now()`,
        },
      })
      .returning();
    if (!row) throw new Error("The function was not stored.");
    const versionId = newId("ver");
    await tx.insert(versions).values({
      id: versionId,
      functionId: row.id,
      number: row.currentVersion,
      bundleDigest: bundle.digest,
      config,
      ...(findings ? { findings } : {}),
    });
    return {
      id: row.id,
      name: row.name,
      version: row.currentVersion,
      versionId,
      digest: bundle.digest,
      sizeBytes: bundle.content.length,
      config,
      createdAt: row.createdAt,
      updatedAt: row.updatedAt,
    };
  });
}

const summaryColumns = {
  id: functions.id,
  name: functions.name,
  version: functions.currentVersion,
  versionId: versions.id,
  digest: versions.bundleDigest,
  sizeBytes: bundles.sizeBytes,
  config: versions.config,
  createdAt: functions.createdAt,
  updatedAt: functions.updatedAt,
};

const summaries = (db: Database) =>
  db.orm
    .select(summaryColumns)
    .from(functions)
    .innerJoin(
      versions,
      and(eq(versions.functionId, functions.id), eq(versions.number, functions.currentVersion)),
    )
    .innerJoin(bundles, eq(bundles.digest, versions.bundleDigest));

/** At most `limit` functions of a tenant in order of name, those after the name `after`. */
export async function listFunctions(
  db: Database,
  tenantId: string,
  limit: number,
  after = "",
): Promise<FunctionSummary[]> {
  return summaries(db)
    .where(
      and(eq(functions.tenantId, tenantId), isNull(functions.deletedAt), gt(functions.name, after)),
    )
    .orderBy(asc(functions.name))
    .limit(limit);
}

export async function readFunction(
  db: Database,
  tenantId: string,
  name: string,
): Promise<FunctionSummary | undefined> {
  const [row] = await summaries(db).where(live(tenantId, name));
  return row;
}

/** A function's versions, newest first. */
export async function listVersions(
  db: Database,
  functionId: string,
  limit: number,
): Promise<VersionSummary[]> {
  return db.orm
    .select({
      versionId: versions.id,
      version: versions.number,
      digest: versions.bundleDigest,
      sizeBytes: bundles.sizeBytes,
      config: versions.config,
      createdAt: versions.createdAt,
    })
    .from(versions)
    .innerJoin(bundles, eq(bundles.digest, versions.bundleDigest))
    .where(eq(versions.functionId, functionId))
    .orderBy(desc(versions.number))
    .limit(limit);
}

/** The function's id, or undefined when there is none of that name. Its versions stay for a while, for calls that are under way. */
export async function deleteFunction(
  db: Database,
  tenantId: string,
  name: string,
): Promise<string | undefined> {
  const [row] = await db.orm
    .update(functions)
    .set({ deletedAt: sql`now()` })
    .where(live(tenantId, name))
    .returning({ id: functions.id });
  return row?.id;
}

const targetColumns = {
  versionId: versions.id,
  functionId: functions.id,
  tenantId: functions.tenantId,
  name: functions.name,
  version: versions.number,
  bundleDigest: versions.bundleDigest,
  config: versions.config,
  findings: versions.findings,
};

/** The version a name stands for: the given number, else the current one; with what its tenant may have. */
export async function resolveFunction(
  db: Database,
  tenantId: string,
  name: string,
  version?: number,
): Promise<CallTarget | undefined> {
  const [row] = await db.orm
    .select({
      spec: targetColumns,
      public: functions.public,
      tier: tenants.tier,
      tenantLimits: tenantQuotas.limits,
      functionLimits: functionQuotas.limits,
    })
    .from(versions)
    .innerJoin(functions, eq(functions.id, versions.functionId))
    .innerJoin(tenants, eq(tenants.id, functions.tenantId))
    .leftJoin(tenantQuotas, eq(tenantQuotas.tenantId, functions.tenantId))
    .leftJoin(functionQuotas, eq(functionQuotas.functionId, functions.id))
    .where(and(live(tenantId, name), eq(versions.number, version ?? functions.currentVersion)));
  if (!row) return undefined;
  const { tier } = row;
  const { findings, ...spec } = row.spec;
  const quota = effectiveQuota(tier, row.tenantLimits ?? {});
  const policy = policyOf(tier, quota);
  const limits = invocationLimits(spec, { policy, quota, own: row.functionLimits ?? {} });
  return {
    ...spec,
    needs: needsOf(findings),
    public: row.public,
    tier,
    policy,
    ...(limits ? { limits } : {}),
  };
}

/** What was found in a version's bundle; undefined when it was published before anybody looked. */
export async function readFindings(
  db: Database,
  versionId: string,
): Promise<BundleFindings | undefined> {
  const [row] = await db.orm
    .select({ findings: versions.findings })
    .from(versions)
    .where(eq(versions.id, versionId));
  return row?.findings ?? undefined;
}

/** A version by its id, also of a function that was deleted a moment ago. */
export async function readVersion(
  db: Database,
  versionId: string,
): Promise<VersionSpec | undefined> {
  const [row] = await db.orm
    .select(targetColumns)
    .from(versions)
    .innerJoin(functions, eq(functions.id, versions.functionId))
    .where(eq(versions.id, versionId));
  if (!row) return undefined;
  const { findings, ...spec } = row;
  return { ...spec, needs: needsOf(findings) };
}

/** Current versions that were published within the last `seconds`, newest first. */
export async function listRecentlyPublished(
  db: Database,
  seconds: number,
  limit: number,
): Promise<{ functionId: string; versionId: string }[]> {
  return db.orm
    .select({ functionId: functions.id, versionId: versions.id })
    .from(functions)
    .innerJoin(
      versions,
      and(eq(versions.functionId, functions.id), eq(versions.number, functions.currentVersion)),
    )
    .where(
      and(
        isNull(functions.deletedAt),
        gt(functions.updatedAt, sql`now() - make_interval(secs => ${seconds})`),
      ),
    )
    .orderBy(desc(functions.updatedAt))
    .limit(limit);
}

/** The tar.gz of a digest. */
export async function readBundle(db: Database, digest: string): Promise<Buffer | undefined> {
  const [row] = await db.orm
    .select({ content: bundles.content })
    .from(bundles)
    .where(eq(bundles.digest, digest));
  return row?.content;
}

/** The name of a function, also of one that was deleted a while ago; undefined when nothing is left of it. */
export async function functionName(db: Database, id: string): Promise<string | undefined> {
  const [row] = await db.orm
    .select({ name: functions.name })
    .from(functions)
    .where(eq(functions.id, id));
  return row?.name;
}
