import { z } from "@hono/zod-openapi";
import { SCOPES, TIERS, tenantNameSchema } from "#contracts/tenant";

const tier = z.enum(TIERS);
const scope = z.enum(SCOPES);
const moment = z.iso.datetime().openapi({ description: "UTC" });
const etag = z.string().openapi({ description: "names this state; send it as If-Match" });

/** Whole pages of at most 1000. */
export const limitQuery = z.coerce.number().int().min(1).max(1000).default(100);

export const tenantParameter = z.object({
  tenant: z.string().min(1).max(100).openapi({ description: "id or name", example: "acme" }),
});

export const keyParameter = tenantParameter.extend({
  key: z.string().min(1).max(100).openapi({ description: "the key's id" }),
});

export const ifMatch = z.object({
  "if-match": z.string().max(2000).optional().openapi({
    description: "ETag of the state that the change is of, or *",
  }),
});

export const newTenantSchema = z
  .strictObject({ name: tenantNameSchema, tier })
  .openapi("NewTenant", { description: "names do not change and stand for one tenant each" });

export const tenantChangeSchema = z.strictObject({ tier }).openapi("TenantChange");

export const tenantSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    tier,
    state: z.enum(["active", "suspended"]),
    createdAt: moment,
    updatedAt: moment,
    etag,
  })
  .openapi("Tenant");

export const tenantListQuery = z.object({
  limit: limitQuery,
  after: tenantNameSchema.optional().openapi({ description: "names after this one" }),
  search: z.string().min(1).max(63).optional().openapi({ description: "names that hold this" }),
  tier: tier.optional(),
  state: z.enum(["active", "suspended"]).optional(),
});

export const tenantListSchema = z
  .object({
    tenants: z.array(tenantSchema),
    next: z.string().optional().describe("give it as `after` for the next page"),
  })
  .openapi("TenantList");

/** The last moment whose year has four digits, ms. */
const LATEST_MS = Date.UTC(10_000, 0) - 1;

const expiry = z
  .union([
    z.iso.datetime({ offset: true }).openapi({ description: "RFC 3339, with an offset or Z" }),
    z.number().int().min(1).max(LATEST_MS).openapi({ description: "wall clock, ms" }),
  ])
  .transform((value) => new Date(value))
  .refine((at) => at.getTime() > Date.now(), "must be in the future");

const keyName = z
  .string()
  .regex(/^\P{C}+$/u, "must not be empty or hold control characters")
  .max(100)
  .openapi({ description: "for people; several keys may have the same" });

const scopes = z
  .array(scope)
  .min(1)
  .max(SCOPES.length)
  .refine((list) => new Set(list).size === list.length, "each scope at most once");

export const newKeySchema = z
  .strictObject({ name: keyName, scopes, expiresAt: expiry.optional() })
  .openapi("NewKey");

export const keyChangeSchema = z
  .strictObject({
    name: keyName.optional(),
    scopes: scopes.optional(),
    expiresAt: expiry.nullable().optional().openapi({ description: "null takes it away" }),
  })
  .refine((change) => Object.keys(change).length > 0, "at least one field is needed")
  .openapi("KeyChange");

/** How long an old secret may live on, ms. */
const MAX_GRACE_MS = 24 * 3_600_000;

export const rotationSchema = z
  .strictObject({
    graceMs: z
      .number()
      .int()
      .min(0)
      .max(MAX_GRACE_MS)
      .openapi({ description: "how long the old secret is still taken; 0: not at all" }),
  })
  .openapi("KeyRotation");

export const keySchema = z
  .object({
    id: z.string(),
    tenantId: z.string(),
    name: z.string(),
    scopes: z.array(scope),
    state: z.enum(["active", "expired", "revoked"]),
    createdAt: moment,
    lastUsedAt: moment
      .optional()
      .describe("within a minute of it; does not change the ETag. Absent: never"),
    expiresAt: moment.optional(),
    rotatedAt: moment.optional(),
    previousUntil: moment.optional().describe("until then the former secret is taken too"),
    revokedAt: moment.optional(),
    etag,
  })
  .openapi("Key");

export const clearKeySchema = keySchema
  .extend({ key: z.string().describe("the key itself; it is not shown again") })
  .openapi("ClearKey");

export const keyListQuery = z.object({
  limit: limitQuery,
  after: z.string().max(100).optional().openapi({ description: "ids after this one" }),
});

export const keyListSchema = z
  .object({
    keys: z.array(keySchema),
    next: z.string().optional().describe("give it as `after` for the next page"),
  })
  .openapi("KeyList");

export const auditEntrySchema = z
  .object({
    id: z.number().int(),
    at: moment,
    action: z.string().openapi({ example: "tenant.suspend" }),
    tenantId: z.string().describe("whose it was that was changed"),
    subject: z.string().describe("id of what was changed"),
    keyId: z.string().describe("the key that was used"),
    actorTenantId: z.string().describe("the tenant of that key"),
    before: z.record(z.string(), z.any()).optional(),
    after: z.record(z.string(), z.any()).optional(),
    request: z.object({
      id: z.string(),
      method: z.string(),
      path: z.string(),
      address: z.string().optional().describe("of the peer, which may be a proxy"),
      userAgent: z.string().optional(),
    }),
  })
  .openapi("AuditEntry");

export const auditQuery = z.object({
  limit: limitQuery,
  before: z.coerce
    .number()
    .int()
    .min(1)
    .max(Number.MAX_SAFE_INTEGER)
    .optional()
    .openapi({ description: "entries older than the one with this id" }),
  tenant: z.string().min(1).max(100).optional().openapi({
    description: "name or id of the tenant that was changed; the id of one that is gone, too",
  }),
  key: z.string().max(100).optional().openapi({ description: "id of the key that was used" }),
  action: z
    .string()
    .regex(/^[a-z]+\.[a-z-]+$/)
    .max(100)
    .optional(),
  since: z.iso.datetime({ offset: true }).optional(),
  until: z.iso.datetime({ offset: true }).optional(),
});

export const auditPageSchema = z
  .object({
    entries: z.array(auditEntrySchema),
    next: z.number().int().optional().describe("give it as `before` for the next page"),
  })
  .openapi("AuditPage");
