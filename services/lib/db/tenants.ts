import { and, asc, eq, gt, ilike, inArray, lt, notExists, type SQL, sql } from "drizzle-orm";
import { newId } from "#contracts/ids";
import { CloisterError } from "#errors/catalogue";
import { type AuditState, type Origin, writeAudit } from "./audit.ts";
import type { Database, Transaction } from "./database.ts";
import { checkExpected, type Expected } from "./revision.ts";
import { bundles, functions, type TenantTier, tenants, versions } from "./schema.ts";

/** The tenant of the first start, which is the operator's own; functions that are called without a key are its. */
export const DEFAULT_TENANT = "default";

export interface Tenant {
  id: string;
  /** Never changes. */
  name: string;
  tier: TenantTier;
  /** False while it is suspended. */
  active: boolean;
  revision: number;
  createdAt: Date;
  updatedAt: Date;
}

export interface TenantQuery {
  limit: number;
  /** Names after this one. */
  after?: string;
  /** Names that hold this, whatever the case of its letters. */
  search?: string;
  tier?: TenantTier;
  active?: boolean;
}

const tenantOf = (row: typeof tenants.$inferSelect): Tenant => ({
  id: row.id,
  name: row.name,
  tier: row.tier,
  active: row.state === "active",
  revision: row.revision,
  createdAt: row.createdAt,
  updatedAt: row.updatedAt,
});

const stateOf = (active: boolean): "active" | "suspended" => (active ? "active" : "suspended");

const audited = ({ name, tier, active }: Tenant): AuditState => ({
  name,
  tier,
  state: stateOf(active),
});

export async function readTenant(db: Database, id: string): Promise<Tenant | undefined> {
  const [row] = await db.orm.select().from(tenants).where(eq(tenants.id, id));
  return row && tenantOf(row);
}

export async function tenantByName(db: Database, name: string): Promise<Tenant | undefined> {
  const [row] = await db.orm.select().from(tenants).where(eq(tenants.name, name));
  return row && tenantOf(row);
}

/** Makes the tenant unless there is one of that name, whose tier then stays as it is. */
export async function ensureTenant(db: Database, name: string, tier: TenantTier): Promise<Tenant> {
  await db.orm
    .insert(tenants)
    .values({ id: newId("ten"), name, tier })
    .onConflictDoNothing({ target: tenants.name });
  const tenant = await tenantByName(db, name);
  if (!tenant) throw new Error(`The tenant ${name} was removed while it was made.`);
  return tenant;
}

/** At most `limit` tenants in order of name. */
export async function listTenants(db: Database, query: TenantQuery): Promise<Tenant[]> {
  const { limit, after, search, tier, active } = query;
  // No name holds anything else, and the database cannot hold every string.
  if (search !== undefined && !/^[A-Za-z0-9._-]*$/.test(search)) return [];
  const conditions: (SQL | undefined)[] = [
    after === undefined ? undefined : gt(tenants.name, after),
    search === undefined ? undefined : ilike(tenants.name, `%${search.replaceAll("_", "\\_")}%`),
    tier && eq(tenants.tier, tier),
    active === undefined ? undefined : eq(tenants.state, stateOf(active)),
  ];
  const rows = await db.orm
    .select()
    .from(tenants)
    .where(and(...conditions))
    .orderBy(asc(tenants.name))
    .limit(limit);
  return rows.map(tenantOf);
}

/** Rejects with `conflict` when the name is taken. */
export async function createTenant(
  db: Database,
  { name, tier }: Pick<Tenant, "name" | "tier">,
  origin: Origin,
): Promise<Tenant> {
  return db.orm.transaction(async (tx) => {
    const [row] = await tx
      .insert(tenants)
      .values({ id: newId("ten"), name, tier })
      .onConflictDoNothing({ target: tenants.name })
      .returning();
    if (!row) throw new CloisterError("conflict", `There is a tenant named ${name} already`);
    const made = tenantOf(row);
    await writeAudit(tx, origin, {
      action: "tenant.create",
      tenantId: made.id,
      subject: made.id,
      after: audited(made),
    });
    return made;
  });
}

/** What it is afterwards; what is so already is no change. Rejects with `tenant_not_found` or `precondition_failed`. */
export async function changeTenant(
  db: Database,
  id: string,
  change: Partial<Pick<Tenant, "tier" | "active">>,
  { action, origin, expected }: { action: string; origin: Origin; expected?: Expected },
): Promise<Tenant> {
  return db.orm.transaction(async (tx) => {
    const before = await locked(tx, id, expected);
    const { tier = before.tier, active = before.active } = change;
    if (tier === before.tier && active === before.active) return before;
    const [row] = await tx
      .update(tenants)
      .set({
        tier,
        state: stateOf(active),
        revision: sql`${tenants.revision} + 1`,
        updatedAt: sql`now()`,
      })
      .where(eq(tenants.id, id))
      .returning();
    const after = tenantOf(row as typeof tenants.$inferSelect);
    await writeAudit(tx, origin, {
      action,
      tenantId: id,
      subject: id,
      before: audited(before),
      after: audited(after),
    });
    return after;
  });
}

/** Removes it with its keys, functions, versions and bundles. Its records and logs stay for their time; what was done to it stays in the audit log. */
export async function deleteTenant(
  db: Database,
  id: string,
  { origin, expected }: { origin: Origin; expected?: Expected },
): Promise<void> {
  await db.orm.transaction(async (tx) => {
    const before = await locked(tx, id, expected);
    const own = await tx
      .selectDistinct({ digest: versions.bundleDigest })
      .from(versions)
      .innerJoin(functions, eq(functions.id, versions.functionId))
      .where(eq(functions.tenantId, id));
    await tx.delete(tenants).where(eq(tenants.id, id));
    await deleteUnused(
      tx,
      own.map(({ digest }) => digest),
    );
    await writeAudit(tx, origin, {
      action: "tenant.delete",
      tenantId: id,
      subject: id,
      before: audited(before),
    });
  });
}

/** Bundles that no version uses go, unless somebody may be publishing the same at this moment: that takes no longer than a statement may. */
async function deleteUnused(tx: Transaction, digests: string[]): Promise<void> {
  if (digests.length === 0) return;
  await tx
    .delete(bundles)
    .where(
      and(
        inArray(bundles.digest, digests),
        lt(bundles.touchedAt, sql`now() - interval '1 minute'`),
        notExists(
          tx
            .select({ id: versions.id })
            .from(versions)
            .where(eq(versions.bundleDigest, bundles.digest)),
        ),
      ),
    );
}

/** Names of these tenants by id; those that are gone are left out. */
export async function tenantNames(
  db: Database,
  ids: readonly string[],
): Promise<Map<string, string>> {
  if (ids.length === 0) return new Map();
  const rows = await db.orm
    .select({ id: tenants.id, name: tenants.name })
    .from(tenants)
    .where(inArray(tenants.id, [...ids]));
  return new Map(rows.map(({ id, name }) => [id, name]));
}

/** Which of these tenants are active and which suspended; those that are gone are left out. */
export async function tenantStates(
  db: Database,
  ids: readonly string[],
): Promise<Map<string, "active" | "suspended">> {
  if (ids.length === 0) return new Map();
  const rows = await db.orm
    .select({ id: tenants.id, state: tenants.state })
    .from(tenants)
    .where(inArray(tenants.id, [...ids]));
  return new Map(rows.map(({ id, state }) => [id, state]));
}

/** The tenant, which nobody else changes until the transaction ends. */
export async function locked(tx: Transaction, id: string, expected?: Expected): Promise<Tenant> {
  const [row] = await tx.select().from(tenants).where(eq(tenants.id, id)).for("update");
  if (!row) throw new CloisterError("tenant_not_found", `There is no tenant ${id}`);
  const tenant = tenantOf(row);
  checkExpected(tenant, expected);
  return tenant;
}
