import { and, desc, eq, gte, lt, type SQL } from "drizzle-orm";
import type { Database, Transaction } from "./database.ts";
import { type AuditRequest, type AuditState, auditLog } from "./schema.ts";

export type { AuditRequest, AuditState } from "./schema.ts";

/** Who asks for a change, and by which request. */
export interface Origin {
  keyId: string;
  /** The key's own tenant. */
  tenantId: string;
  request: AuditRequest;
}

/** What was done, e.g. `tenant.create`, to what, and what it was like before and after. */
export interface AuditedChange {
  action: string;
  /** Whose it is. */
  tenantId: string;
  /** The id of what was changed. */
  subject: string;
  before?: AuditState;
  after?: AuditState;
}

export interface AuditEntry extends AuditedChange {
  id: number;
  at: Date;
  keyId: string;
  actorTenantId: string;
  request: AuditRequest;
}

export interface AuditQuery {
  limit: number;
  /** Entries older than this one. */
  before?: number;
  tenantId?: string;
  keyId?: string;
  action?: string;
  since?: Date;
  until?: Date;
}

/** Writes down a change, in the transaction that makes it: there is never one without the other. */
export async function writeAudit(
  tx: Transaction,
  { keyId, tenantId, request }: Origin,
  change: AuditedChange,
): Promise<void> {
  await tx.insert(auditLog).values({ keyId, actorTenantId: tenantId, request, ...change });
}

/** Entries that match all that is asked for, newest first. */
export async function readAudit(db: Database, query: AuditQuery): Promise<AuditEntry[]> {
  const { limit, before, tenantId, keyId, action, since, until } = query;
  const conditions: (SQL | undefined)[] = [
    before === undefined ? undefined : lt(auditLog.id, before),
    tenantId === undefined ? undefined : eq(auditLog.tenantId, tenantId),
    keyId === undefined ? undefined : eq(auditLog.keyId, keyId),
    action === undefined ? undefined : eq(auditLog.action, action),
    since && gte(auditLog.at, since),
    until && lt(auditLog.at, until),
  ];
  const rows = await db.orm
    .select()
    .from(auditLog)
    .where(and(...conditions))
    .orderBy(desc(auditLog.id))
    .limit(limit);
  return rows.map(({ before, after, ...rest }) => ({
    ...rest,
    ...(before ? { before } : {}),
    ...(after ? { after } : {}),
  }));
}
