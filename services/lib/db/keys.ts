import { hash, randomBytes, timingSafeEqual } from "node:crypto";
import { eq } from "drizzle-orm";
import { newId } from "#contracts/ids";
import type { Database } from "./database.ts";
import { apiKeys, type Scope, type TenantTier, tenants } from "./schema.ts";

export type { Scope, TenantTier } from "./schema.ts";

/** A key as it is stored, with what a request needs to know of its tenant. */
export interface KeyRecord {
  id: string;
  tenantId: string;
  tier: TenantTier;
  tenantActive: boolean;
  scopes: Scope[];
  secretHash: Buffer;
  expiresAtMs: number | undefined;
  revoked: boolean;
}

const FORMAT = /^cl_([0-9a-v]{26})_([A-Za-z0-9_-]{43})$/;

const hashOf = (secret: string): Buffer => hash("sha256", secret, "buffer");

/** The parts of a clear key `cl_<id>_<secret>`; undefined for anything else. */
export function parseKey(clear: string): { id: string; secret: string } | undefined {
  const match = FORMAT.exec(clear);
  return match ? { id: `key_${match[1]}`, secret: match[2] as string } : undefined;
}

/** Whether the secret is the key's, in constant time. */
export const secretMatches = (key: KeyRecord, secret: string): boolean =>
  timingSafeEqual(hashOf(secret), key.secretHash);

/** Makes a key of a tenant; its clear form is in the answer and nowhere else. */
export async function createKey(
  db: Database,
  tenantId: string,
  name: string,
  scopes: Scope[],
): Promise<{ id: string; clear: string }> {
  const id = newId("key");
  const secret = randomBytes(32).toString("base64url");
  await db.orm.insert(apiKeys).values({ id, tenantId, name, secretHash: hashOf(secret), scopes });
  return { id, clear: `cl_${id.slice("key_".length)}_${secret}` };
}

export async function readKey(db: Database, id: string): Promise<KeyRecord | undefined> {
  const [row] = await db.orm
    .select({ key: apiKeys, tier: tenants.tier, state: tenants.state })
    .from(apiKeys)
    .innerJoin(tenants, eq(tenants.id, apiKeys.tenantId))
    .where(eq(apiKeys.id, id));
  if (!row) return undefined;
  const { key } = row;
  return {
    id: key.id,
    tenantId: key.tenantId,
    tier: row.tier,
    tenantActive: row.state === "active",
    scopes: key.scopes,
    secretHash: key.secretHash,
    expiresAtMs: key.expiresAt?.getTime(),
    revoked: key.revokedAt !== null,
  };
}

/** Notes when keys were last used: one statement for all of them. */
export async function touchKeys(
  db: Database,
  usedAtMs: ReadonlyMap<string, number>,
): Promise<void> {
  if (usedAtMs.size === 0) return;
  await db.pool.query(
    `update api_keys set last_used_at = to_timestamp(used.ms / 1000.0)
     from unnest($1::text[], $2::float8[]) as used (id, ms) where api_keys.id = used.id`,
    [[...usedAtMs.keys()], [...usedAtMs.values()]],
  );
}

export async function revokeKey(db: Database, id: string): Promise<void> {
  await db.orm.update(apiKeys).set({ revokedAt: new Date() }).where(eq(apiKeys.id, id));
}
