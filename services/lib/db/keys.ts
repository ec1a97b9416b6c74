import { hash, randomBytes, timingSafeEqual } from "node:crypto";
import { and, arrayContains, asc, count, eq, gt, isNull, or, sql } from "drizzle-orm";
import type { PgUpdateSetSource } from "drizzle-orm/pg-core";
import { newId } from "#contracts/ids";
import { CloisterError } from "#errors/catalogue";
import { type AuditState, type Origin, writeAudit } from "./audit.ts";
import type { Database, Transaction } from "./database.ts";
import { checkExpected, type Expected } from "./revision.ts";
import { apiKeys, type Scope, type TenantTier, tenants } from "./schema.ts";
import { DEFAULT_TENANT, locked, type Tenant } from "./tenants.ts";

export type { Scope, TenantTier } from "./schema.ts";

/** A key as it is stored, with what a request needs to know of its tenant. */
export interface KeyRecord {
  id: string;
  tenantId: string;
  tier: TenantTier;
  tenantActive: boolean;
  /** It is the operator's: with the scope admin it governs all tenants. */
  operator: boolean;
  scopes: Scope[];
  secretHash: Buffer;
  /** The secret before the last rotation, while it is taken. */
  previous: { secretHash: Buffer; untilMs: number } | undefined;
  expiresAtMs: number | undefined;
  revoked: boolean;
}

/** A key as people see it. */
export interface KeySummary {
  id: string;
  tenantId: string;
  name: string;
  scopes: Scope[];
  createdAt: Date;
  lastUsedAt: Date | undefined;
  expiresAt: Date | undefined;
  revokedAt: Date | undefined;
  rotatedAt: Date | undefined;
  /** Until when the secret before the last rotation is taken. */
  previousUntil: Date | undefined;
  revision: number;
}

export interface NewKey {
  name: string;
  scopes: Scope[];
  expiresAt?: Date;
}

/** What may be changed of a key; null takes the expiry away. */
export interface KeyChange {
  name?: string;
  scopes?: Scope[];
  expiresAt?: Date | null;
}

/** A key with its clear form, which exists nowhere else. */
export interface ClearKey {
  key: KeySummary;
  clear: string;
}

/** Keys of one tenant that are neither revoked nor expired. */
const MAX_LIVE_KEYS = 1000;

const FORMAT = /^cl_([0-9a-v]{26})_([A-Za-z0-9_-]{43})$/;

const hashOf = (secret: string): Buffer => hash("sha256", secret, "buffer");
const newSecret = (): string => randomBytes(32).toString("base64url");
const clearOf = (id: string, secret: string): string => `cl_${id.slice("key_".length)}_${secret}`;

/** The parts of a clear key `cl_<id>_<secret>`; undefined for anything else. */
export function parseKey(clear: string): { id: string; secret: string } | undefined {
  const match = FORMAT.exec(clear);
  return match ? { id: `key_${match[1]}`, secret: match[2] as string } : undefined;
}

/** Which of the key's secrets it is, each compared in constant time; undefined for neither. */
export function matchSecret(key: KeyRecord, secret: string): "current" | "previous" | undefined {
  const hashed = hashOf(secret);
  if (timingSafeEqual(hashed, key.secretHash)) return "current";
  return key.previous && timingSafeEqual(hashed, key.previous.secretHash) ? "previous" : undefined;
}

const summaryOf = (row: typeof apiKeys.$inferSelect): KeySummary => ({
  id: row.id,
  tenantId: row.tenantId,
  name: row.name,
  scopes: row.scopes,
  createdAt: row.createdAt,
  lastUsedAt: row.lastUsedAt ?? undefined,
  expiresAt: row.expiresAt ?? undefined,
  revokedAt: row.revokedAt ?? undefined,
  rotatedAt: row.rotatedAt ?? undefined,
  previousUntil: row.revokedAt ? undefined : (row.previousUntil ?? undefined),
  revision: row.revision,
});

const audited = (key: KeySummary): AuditState => ({
  name: key.name,
  scopes: key.scopes,
  expiresAt: key.expiresAt?.toISOString() ?? null,
  ...(key.revokedAt ? { revokedAt: key.revokedAt.toISOString() } : {}),
  ...(key.previousUntil ? { previousUntil: key.previousUntil.toISOString() } : {}),
});

/** Makes a key that no admin has asked for: those of the first start. `issueKey` is for all others. */
export async function createKey(
  db: Database,
  tenantId: string,
  name: string,
  scopes: Scope[],
): Promise<{ id: string; clear: string }> {
  const id = newId("key");
  const secret = newSecret();
  await db.orm.insert(apiKeys).values({ id, tenantId, name, secretHash: hashOf(secret), scopes });
  return { id, clear: clearOf(id, secret) };
}

/** Rejects with `tenant_not_found`, or with `conflict` when the tenant has too many. */
export async function issueKey(
  db: Database,
  tenantId: string,
  wanted: NewKey,
  origin: Origin,
): Promise<ClearKey> {
  const id = newId("key");
  const secret = newSecret();
  return db.orm.transaction(async (tx) => {
    await locked(tx, tenantId);
    const [live] = await tx
      .select({ count: count() })
      .from(apiKeys)
      .where(and(eq(apiKeys.tenantId, tenantId), usable()));
    if ((live?.count ?? 0) >= MAX_LIVE_KEYS)
      throw new CloisterError("conflict", `The tenant has ${MAX_LIVE_KEYS} keys; revoke one first`);
    const [row] = await tx
      .insert(apiKeys)
      .values({ id, tenantId, secretHash: hashOf(secret), ...wanted })
      .returning();
    const key = summaryOf(row as typeof apiKeys.$inferSelect);
    await writeAudit(tx, origin, {
      action: "key.create",
      tenantId,
      subject: id,
      after: audited(key),
    });
    return { key, clear: clearOf(id, secret) };
  });
}

export async function readKey(db: Database, id: string): Promise<KeyRecord | undefined> {
  const [row] = await db.orm
    .select({ key: apiKeys, tier: tenants.tier, state: tenants.state, tenant: tenants.name })
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
    operator: row.tenant === DEFAULT_TENANT,
    scopes: key.scopes,
    secretHash: key.secretHash,
    previous:
      key.previousHash && key.previousUntil
        ? { secretHash: key.previousHash, untilMs: key.previousUntil.getTime() }
        : undefined,
    expiresAtMs: key.expiresAt?.getTime(),
    revoked: key.revokedAt !== null,
  };
}

/** At most `limit` keys of a tenant in order of their making, those after the id `after`; also those that are of no use any more. */
export async function listKeys(
  db: Database,
  tenantId: string,
  limit: number,
  after = "",
): Promise<KeySummary[]> {
  const rows = await db.orm
    .select()
    .from(apiKeys)
    .where(and(eq(apiKeys.tenantId, tenantId), gt(apiKeys.id, after)))
    .orderBy(asc(apiKeys.id))
    .limit(limit);
  return rows.map(summaryOf);
}

/** A tenant's key; undefined for those of others. */
export async function readKeySummary(
  db: Database,
  tenantId: string,
  id: string,
): Promise<KeySummary | undefined> {
  const [row] = await db.orm.select().from(apiKeys).where(ownKey(tenantId, id));
  return row && summaryOf(row);
}

/** Rejects with `key_not_found`, `precondition_failed`, or with `conflict` for one that is revoked or the operator's last. */
export async function changeKey(
  db: Database,
  tenantId: string,
  id: string,
  change: KeyChange,
  { origin, expected }: { origin: Origin; expected: Expected },
): Promise<KeySummary> {
  return db.orm.transaction(async (tx) => {
    const { tenant, key: before } = await lockedKey(tx, tenantId, id, expected);
    refuseRevoked(before);
    const after = await update(tx, id, change);
    await refuseLockOut(tx, tenant, before);
    await note(tx, origin, "key.change", before, after);
    return after;
  });
}

/** Gives it a new secret; the old one is taken for `graceMs` more. Rejects as `changeKey` does, also for one that has expired. */
export async function rotateKey(
  db: Database,
  tenantId: string,
  id: string,
  graceMs: number,
  { origin, expected }: { origin: Origin; expected: Expected },
): Promise<ClearKey> {
  const secret = newSecret();
  return db.orm.transaction(async (tx) => {
    const { key: before } = await lockedKey(tx, tenantId, id, expected);
    refuseRevoked(before);
    if (before.expiresAt && before.expiresAt.getTime() <= Date.now())
      throw new CloisterError("conflict", `${id} has expired; make a new key instead`);
    const key = await update(tx, id, {
      secretHash: hashOf(secret),
      rotatedAt: new Date(),
      ...(graceMs === 0
        ? { previousHash: null, previousUntil: null }
        : // Of the row before the update.
          { previousHash: sql`secret_hash`, previousUntil: new Date(Date.now() + graceMs) }),
    });
    await note(tx, origin, "key.rotate", before, key);
    return { key, clear: clearOf(id, secret) };
  });
}

/** Ends its use for good. Revoking it again changes nothing. Rejects with `key_not_found`, `precondition_failed`, or `conflict` for the operator's last. */
export async function revokeKey(
  db: Database,
  tenantId: string,
  id: string,
  { origin, expected }: { origin: Origin; expected?: Expected },
): Promise<KeySummary> {
  return db.orm.transaction(async (tx) => {
    const { tenant, key: before } = await lockedKey(tx, tenantId, id, expected);
    if (before.revokedAt) return before;
    // Its secrets are kept: whoever still uses one is told that it was revoked.
    const after = await update(tx, id, { revokedAt: new Date() });
    await refuseLockOut(tx, tenant, before);
    await note(tx, origin, "key.revoke", before, after);
    return after;
  });
}

/** Notes when keys were last used: one statement for all of them. A clock that was set back, or a slower gateway, takes nothing away. */
export async function touchKeys(
  db: Database,
  usedAtMs: ReadonlyMap<string, number>,
): Promise<void> {
  if (usedAtMs.size === 0) return;
  await db.pool.query(
    `update api_keys set last_used_at = greatest(last_used_at, to_timestamp(used.ms / 1000.0))
     from unnest($1::text[], $2::float8[]) as used (id, ms) where api_keys.id = used.id`,
    [[...usedAtMs.keys()], [...usedAtMs.values()]],
  );
}

const ownKey = (tenantId: string, id: string) =>
  and(eq(apiKeys.tenantId, tenantId), eq(apiKeys.id, id));

const usable = () =>
  and(isNull(apiKeys.revokedAt), or(isNull(apiKeys.expiresAt), gt(apiKeys.expiresAt, sql`now()`)));

async function lockedKey(
  tx: Transaction,
  tenantId: string,
  id: string,
  expected: Expected,
): Promise<{ tenant: Tenant; key: KeySummary }> {
  // All changes of a tenant's keys one after the other: of two last keys, not both can go at once.
  const tenant = await locked(tx, tenantId);
  const [row] = await tx.select().from(apiKeys).where(ownKey(tenantId, id)).for("update");
  if (!row) throw new CloisterError("key_not_found", `The tenant has no key ${id}`);
  const key = summaryOf(row);
  checkExpected(key, expected);
  return { tenant, key };
}

async function update(
  tx: Transaction,
  id: string,
  set: PgUpdateSetSource<typeof apiKeys>,
): Promise<KeySummary> {
  const [row] = await tx
    .update(apiKeys)
    .set({ ...set, revision: sql`${apiKeys.revision} + 1` })
    .where(eq(apiKeys.id, id))
    .returning();
  return summaryOf(row as typeof apiKeys.$inferSelect);
}

const note = (
  tx: Transaction,
  origin: Origin,
  action: string,
  before: KeySummary,
  after: KeySummary,
): Promise<void> =>
  writeAudit(tx, origin, {
    action,
    tenantId: before.tenantId,
    subject: before.id,
    before: audited(before),
    after: audited(after),
  });

function refuseRevoked({ id, revokedAt }: KeySummary): void {
  if (revokedAt)
    throw new CloisterError("conflict", `${id} is revoked for good; make a new key instead`);
}

/** Throws `conflict` when the change, which has been made in this transaction, leaves the operator without an admin key. */
async function refuseLockOut(tx: Transaction, tenant: Tenant, before: KeySummary): Promise<void> {
  if (tenant.name !== DEFAULT_TENANT || !before.scopes.includes("admin")) return;
  const [left] = await tx
    .select({ count: count() })
    .from(apiKeys)
    .where(
      and(eq(apiKeys.tenantId, tenant.id), usable(), arrayContains(apiKeys.scopes, ["admin"])),
    );
  if (left?.count === 0)
    throw new CloisterError(
      "conflict",
      `${before.id} is the operator's last admin key; make another one first`,
    );
}
