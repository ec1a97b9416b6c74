import { eq } from "drizzle-orm";
import { newId } from "#contracts/ids";
import type { Database } from "./database.ts";
import { type TenantTier, tenants } from "./schema.ts";

/** The tenant of the first start; functions that are called without a key are its. */
export const DEFAULT_TENANT = "default";

export interface Tenant {
  id: string;
  name: string;
  tier: TenantTier;
  active: boolean;
}

const tenantOf = (row: typeof tenants.$inferSelect): Tenant => ({
  id: row.id,
  name: row.name,
  tier: row.tier,
  active: row.state === "active",
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
