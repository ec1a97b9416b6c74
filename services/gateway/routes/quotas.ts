import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import {
  beyondTenant,
  effectiveFunctionQuota,
  type FunctionQuota,
  functionQuotaSchema,
  type Quota,
  quotaSchema,
  type TenantQuota,
  tenantQuotaSchema,
} from "#contracts/quota";
import {
  type QuotaChange,
  quotaRevision,
  readFunctionQuota,
  readTenantQuota,
  replaceFunctionQuota,
  type StoredFunctionQuota,
} from "#db/quotas";
import { CloisterError } from "#errors/catalogue";
import { etagOf, expectedBy } from "../admin/if-match.ts";
import { originOf } from "../admin/origin.ts";
import { tenantOf } from "../admin/tenant-of.ts";
import type { GatewayContext } from "../gateway-context.ts";
import { requireOperator } from "../middleware/admin.ts";
import { type GatewayEnv, requireScope } from "../middleware/caller.ts";
import { jsonBody } from "../middleware/json-body.ts";
import { noTenant, type QuotaReport, reportQuota, setTenantQuota } from "../quota/tenant-quota.ts";
import { ifMatch, tenantParameter } from "./admin/admin-schemas.ts";
import { body, security } from "./admin/answers.ts";
import { nameParameter } from "./function-schemas.ts";
import { existing } from "./functions.ts";
import { problems } from "./problem-answers.ts";

const number = z.number().nullable();
const useSchema = z
  .object({
    burst: number.describe("calls of the burst that are spent and have not come back"),
    concurrency: number.describe("calls under way"),
    gbSecondsPerMonth: number.describe("of this month, UTC"),
    memoryMb: number.describe("of the largest function"),
    timeoutMs: number.describe("of the function with the longest"),
    bundleBytes: number.describe("of the largest function's bundle"),
    functions: number,
  })
  .describe("null: not counted, because nothing limits it or the counters cannot be reached")
  .openapi("QuotaUse");

// Copies: a schema that was made before zod was extended cannot be named.
const shownQuotaSchema = z.object({ ...quotaSchema.shape }).openapi("EffectiveQuota");
const quotaAnswerSchema = shownQuotaSchema
  .extend({
    tenant: z.string().describe("its id"),
    tier: z.enum(["trusted", "standard", "untrusted"]),
    own: z.any().describe("what was set: a PUT of it changes nothing"),
    plan: shownQuotaSchema.describe("what holds where nothing was set"),
    use: useSchema,
    over: z.array(z.string()).describe("quotas that are below what is used now"),
  })
  .openapi("Quota");

const functionAnswerSchema = z
  .object({
    function: z.string(),
    requestsPerSecond: number,
    burst: number,
    concurrency: number,
    memoryMb: number,
    timeoutMs: number,
    own: z.any().describe("what was set"),
  })
  .openapi("FunctionQuota");

const answerOf = <T extends z.ZodType>(schema: T, description: string) => ({
  description,
  headers: z.object({ ETag: z.string().describe("for If-Match") }),
  content: { "application/json": { schema } },
});
const tags = ["quotas"];
const CHANGE_PROBLEMS = [
  ...(["bad_request", "unsupported_media_type", "body_too_large"] as const),
  ...(["precondition_failed", "precondition_required"] as const),
] as const;

/** What tenants may have, and what they allow their own functions. */
export function registerQuotas(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  registerTenantQuotas(app, gateway);
  registerFunctionQuotas(app, gateway);
}

function registerTenantQuotas(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  const { authenticator, db } = gateway;
  const path = "/admin/v1/tenants/{tenant}/quota";
  const shown = ({ stored, use, over }: QuotaReport) => {
    const { tenantId, tier, own, plan, quota } = stored;
    return { ...quota, tenant: tenantId, tier, own, plan, use, over };
  };
  const tagOf = ({ stored: { tenantId, version } }: QuotaReport) => ({
    etag: etagOf(quotaRevision(tenantId, version)),
  });

  app.openapi(
    createRoute({
      method: "get",
      path,
      summary: "Read a tenant's quota and what is used of it",
      description: "An admin key of that tenant may read it too.",
      tags,
      security,
      middleware: [requireScope(authenticator, "admin")] as const,
      request: { params: tenantParameter },
      responses: {
        200: answerOf(quotaAnswerSchema, "what holds"),
        ...problems("bad_request", "tenant_not_found"),
      },
    }),
    async (c) => {
      const { id } = await tenantOf(db, c.get("caller"), c.req.valid("param").tenant);
      const report = await reportQuota(gateway, id);
      return c.json(shown(report), 200, tagOf(report));
    },
  );

  app.openapi(
    createRoute({
      method: "put",
      path,
      summary: "Replace a tenant's quota",
      description:
        "null is unlimited; a field that is left out is the plan's. A quota below what is used now is taken: nothing that runs is ended, new work is " +
        "refused, and `over` names it. Every gateway follows within a second. Without If-Match the change is refused when another key has made one " +
        "within a minute.",
      tags,
      security,
      middleware: [requireOperator(authenticator), jsonBody()] as const,
      request: { params: tenantParameter, headers: ifMatch, ...body(tenantQuotaSchema) },
      responses: {
        200: answerOf(quotaAnswerSchema, "what holds now"),
        ...problems("tenant_not_found", ...CHANGE_PROBLEMS),
      },
    }),
    async (c) => {
      const tenant = await tenantOf(db, c.get("caller"), c.req.valid("param").tenant);
      const own: TenantQuota = c.req.valid("json");
      const change = changeOf(c.req.valid("header")["if-match"], c.get("caller").keyId);
      const origin = originOf(c);
      const report = await setTenantQuota(gateway, tenant, own, { ...change, origin });
      return c.json(shown(report), 200, tagOf(report));
    },
  );
}

function registerFunctionQuotas(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  const { authenticator, db } = gateway;
  const path = "/v1/functions/{name}/quota";
  const tenantQuota = async (tenantId: string): Promise<Quota> => {
    const stored = await readTenantQuota(db, tenantId);
    if (!stored) throw noTenant(tenantId);
    return stored.quota;
  };
  const shown = (name: string, tenant: Quota, { own }: StoredFunctionQuota) => ({
    function: name,
    ...effectiveFunctionQuota(tenant, own),
    own,
  });
  const tagOf = (id: string, { version }: StoredFunctionQuota) => ({
    etag: etagOf(quotaRevision(id, version)),
  });

  app.openapi(
    createRoute({
      method: "get",
      path,
      summary: "Read what a function is held to",
      tags,
      security,
      middleware: [requireScope(authenticator, "read")] as const,
      request: { params: nameParameter },
      responses: {
        200: answerOf(functionAnswerSchema, "what holds: never more than the tenant has"),
        ...problems("bad_request", "function_not_found"),
      },
    }),
    async (c) => {
      const { tenantId } = c.get("caller");
      const { id, name } = await existing(gateway, tenantId, c.req.valid("param").name);
      const stored = await readFunctionQuota(db, id);
      return c.json(shown(name, await tenantQuota(tenantId), stored), 200, tagOf(id, stored));
    },
  );

  app.openapi(
    createRoute({
      method: "put",
      path,
      summary: "Allow a function less than its tenant has",
      description:
        "Replaces what was set; a field that is left out or null is the tenant's. More than the tenant has is refused.",
      tags,
      security,
      middleware: [requireScope(authenticator, "deploy"), jsonBody()] as const,
      request: { params: nameParameter, headers: ifMatch, ...body(functionQuotaSchema) },
      responses: {
        200: answerOf(functionAnswerSchema, "what holds now"),
        ...problems("function_not_found", ...CHANGE_PROBLEMS),
      },
    }),
    async (c) => {
      const { tenantId, keyId } = c.get("caller");
      const own: FunctionQuota = c.req.valid("json");
      const { id, name } = await existing(gateway, tenantId, c.req.valid("param").name);
      const tenant = await tenantQuota(tenantId);
      const beyond = beyondTenant(tenant, own);
      if (beyond.length > 0)
        throw new CloisterError(
          "bad_request",
          `A function may not have more than its tenant: ${beyond.map((field) => `${field} is at most ${tenant[field]}`).join(", ")}`,
        );
      const change = changeOf(c.req.valid("header")["if-match"], keyId);
      const stored = await replaceFunctionQuota(db, id, own, change);
      if (!stored) throw new CloisterError("function_not_found");
      await gateway.changed({ kind: "function", id });
      return c.json(shown(name, tenant, stored), 200, tagOf(id, stored));
    },
  );
}

const changeOf = (ifMatch: string | undefined, keyId: string): QuotaChange => ({
  keyId,
  expected: expectedBy(ifMatch),
  blind: ifMatch === undefined,
});
