import {
  bigint,
  boolean,
  customType,
  doublePrecision,
  integer,
  jsonb,
  pgTable,
  smallint,
  text,
  timestamp,
} from "drizzle-orm/pg-core";
import type { FunctionConfig } from "#contracts/function";
import type { ExitCounts, Phases } from "#contracts/invocation";
import type { BundleFindings } from "#contracts/needs";
import type { FunctionQuota, TenantQuota } from "#contracts/quota";
import { SCOPES, TIERS } from "#contracts/tenant";

/** What something was like before or after a change; never a secret. */
export type AuditState = Record<string, unknown>;

/** The request that asked for it. */
export interface AuditRequest {
  id: string;
  method: string;
  path: string;
  /** The peer's address, which may be a proxy's. */
  address?: string;
  userAgent?: string;
}

/** The tables as migrations/ makes them; a test compares the two. */

const bytea = customType<{ data: Buffer }>({ dataType: () => "bytea" });
const moment = (name: string) => timestamp(name, { withTimezone: true, mode: "date" });
const bytes = (name: string) => bigint(name, { mode: "number" });

export type TenantTier = (typeof TIERS)[number];
export type Scope = (typeof SCOPES)[number];

export const tenants = pgTable("tenants", {
  id: text("id").primaryKey(),
  name: text("name").notNull(),
  tier: text("tier", { enum: TIERS }).notNull(),
  state: text("state", { enum: ["active", "suspended"] })
    .notNull()
    .default("active"),
  createdAt: moment("created_at").notNull().defaultNow(),
  revision: integer("revision").notNull().default(1),
  updatedAt: moment("updated_at").notNull().defaultNow(),
});

export const apiKeys = pgTable("api_keys", {
  id: text("id").primaryKey(),
  tenantId: text("tenant_id").notNull(),
  name: text("name").notNull(),
  secretHash: bytea("secret_hash").notNull(),
  scopes: text("scopes", { enum: SCOPES }).array().notNull(),
  createdAt: moment("created_at").notNull().defaultNow(),
  lastUsedAt: moment("last_used_at"),
  expiresAt: moment("expires_at"),
  revokedAt: moment("revoked_at"),
  revision: integer("revision").notNull().default(1),
  rotatedAt: moment("rotated_at"),
  previousHash: bytea("previous_hash"),
  previousUntil: moment("previous_until"),
});

export const auditLog = pgTable("audit_log", {
  id: bytes("id").primaryKey().generatedAlwaysAsIdentity(),
  at: moment("at").notNull().defaultNow(),
  keyId: text("key_id").notNull(),
  actorTenantId: text("actor_tenant_id").notNull(),
  action: text("action").notNull(),
  tenantId: text("tenant_id").notNull(),
  subject: text("subject").notNull(),
  before: jsonb("before").$type<AuditState>(),
  after: jsonb("after").$type<AuditState>(),
  request: jsonb("request").$type<AuditRequest>().notNull(),
});

export const bundles = pgTable("bundles", {
  digest: text("digest").primaryKey(),
  content: bytea("content").notNull(),
  sizeBytes: integer("size_bytes").notNull(),
  unpackedBytes: bytes("unpacked_bytes").notNull(),
  touchedAt: moment("touched_at").notNull().defaultNow(),
});

export const functions = pgTable("functions", {
  id: text("id").primaryKey(),
  tenantId: text("tenant_id").notNull(),
  name: text("name").notNull(),
  currentVersion: integer("current_version").notNull(),
  public: boolean("public").notNull(),
  createdAt: moment("created_at").notNull().defaultNow(),
  updatedAt: moment("updated_at").notNull().defaultNow(),
  deletedAt: moment("deleted_at"),
});

export const versions = pgTable("versions", {
  id: text("id").primaryKey(),
  functionId: text("function_id").notNull(),
  number: integer("number").notNull(),
  bundleDigest: text("bundle_digest").notNull(),
  config: jsonb("config").$type<FunctionConfig>().notNull(),
  findings: jsonb("findings").$type<BundleFindings>(),
  createdAt: moment("created_at").notNull().defaultNow(),
});

export const tenantQuotas = pgTable("tenant_quotas", {
  tenantId: text("tenant_id").primaryKey(),
  limits: jsonb("limits").$type<TenantQuota>().notNull(),
  version: integer("version").notNull(),
  changedBy: text("changed_by").notNull(),
  changedAt: moment("changed_at").notNull().defaultNow(),
});

export const functionQuotas = pgTable("function_quotas", {
  functionId: text("function_id").primaryKey(),
  limits: jsonb("limits").$type<FunctionQuota>().notNull(),
  version: integer("version").notNull(),
  changedBy: text("changed_by").notNull(),
  changedAt: moment("changed_at").notNull().defaultNow(),
});

export const invocations = pgTable("invocations", {
  id: text("id").notNull(),
  tenantId: text("tenant_id").notNull(),
  functionId: text("function_id").notNull(),
  versionId: text("version_id").notNull(),
  acceptedAt: moment("accepted_at").notNull(),
  finishedAt: moment("finished_at").notNull(),
  status: text("status").notNull(),
  httpStatus: smallint("http_status"),
  errorCode: text("error_code"),
  path: text("path"),
  start: text("start"),
  placementReasons: text("placement_reasons").array().notNull(),
  phases: jsonb("phases").$type<Phases>().notNull(),
  durationMs: doublePrecision("duration_ms").notNull(),
  billedMs: doublePrecision("billed_ms").notNull(),
  memoryMb: integer("memory_mb").notNull(),
  cpuMs: doublePrecision("cpu_ms"),
  memoryPeakBytes: bytes("memory_peak_bytes"),
  requestBytes: bytes("request_bytes").notNull(),
  responseBytes: bytes("response_bytes").notNull(),
  sandboxId: text("sandbox_id"),
  nodeId: text("node_id").notNull(),
  exits: jsonb("exits").$type<ExitCounts>(),
  syscalls: jsonb("syscalls").$type<Record<string, number>>(),
  pageFaults: bytes("page_faults"),
  guestMs: doublePrecision("guest_ms"),
  monitorMs: doublePrecision("monitor_ms"),
  lost: boolean("lost").notNull(),
  replacedStatus: text("replaced_status"),
  placementRules: text("placement_rules").array(),
  placementTable: text("placement_table"),
});

export const usageHours = pgTable("usage_hours", {
  tenantId: text("tenant_id").notNull(),
  hour: moment("hour").notNull(),
  functionId: text("function_id").notNull(),
  path: text("path").notNull(),
  status: text("status").notNull(),
  invocations: bytes("invocations").notNull(),
  mibMs: bytes("mib_ms").notNull(),
  cpuUs: bytes("cpu_us").notNull(),
  egressBytes: bytes("egress_bytes").notNull(),
});

export const usageStorage = pgTable("usage_storage", {
  tenantId: text("tenant_id").notNull(),
  hour: moment("hour").notNull(),
  peakBytes: bytes("peak_bytes").notNull(),
  endBytes: bytes("end_bytes").notNull(),
});

export const recordHorizon = pgTable("record_horizon", {
  one: boolean("one").primaryKey(),
  oldest: moment("oldest").notNull(),
});

export const functionLogs = pgTable("function_logs", {
  seq: bytes("seq").notNull(),
  tenantId: text("tenant_id").notNull(),
  functionId: text("function_id").notNull(),
  invocationId: text("invocation_id"),
  version: integer("version").notNull(),
  at: moment("at").notNull(),
  stream: text("stream", { enum: ["stdout", "stderr", "system", "trace"] }).notNull(),
  text: text("text").notNull(),
});
