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

/** The tables as migrations/ makes them; a test compares the two. */

const bytea = customType<{ data: Buffer }>({ dataType: () => "bytea" });
const moment = (name: string) => timestamp(name, { withTimezone: true, mode: "date" });
const bytes = (name: string) => bigint(name, { mode: "number" });

export const TIERS = ["trusted", "standard", "untrusted"] as const;
export type TenantTier = (typeof TIERS)[number];
export const SCOPES = ["invoke", "deploy", "read", "admin"] as const;
export type Scope = (typeof SCOPES)[number];

export const tenants = pgTable("tenants", {
  id: text("id").primaryKey(),
  name: text("name").notNull(),
  tier: text("tier", { enum: TIERS }).notNull(),
  state: text("state", { enum: ["active", "suspended"] })
    .notNull()
    .default("active"),
  createdAt: moment("created_at").notNull().defaultNow(),
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
  createdAt: moment("created_at").notNull().defaultNow(),
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
