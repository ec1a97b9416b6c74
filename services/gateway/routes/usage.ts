import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { accepts } from "hono/accepts";
import { CPU_US_PER_SECOND, HOUR_MS, MIB_MS_PER_GB_SECOND } from "#contracts/usage";
import {
  readUsageByFunction,
  readUsageHours,
  readUsageTotals,
  reconcileUsage,
  type Used,
} from "#db/usage";
import type { GatewayContext } from "../gateway-context.ts";
import { requireOperator } from "../middleware/admin.ts";
import { type GatewayEnv, requireScope } from "../middleware/caller.ts";
import { usageCsv } from "../usage/csv.ts";
import { hourRange, rfc3339 } from "../usage/range.ts";
import { whoseUsage } from "../usage/whose-usage.ts";
import { notJson } from "./not-json.ts";
import { problems } from "./problem-answers.ts";
import { rangeQuery, reconciliationSchema, usageQuery, usageSchema } from "./usage-schemas.ts";

const tags = ["usage"];
const security = [{ key: [] }];
const answers = {
  200: {
    description:
      "usage; with Accept: text/csv or format=csv, all hours of the range as CSV (RFC 4180)",
    content: {
      "application/json": { schema: usageSchema },
      "text/csv": { schema: z.string() },
    },
  },
};

/** What tenants have used, and whether that agrees with the records. */
export function registerUsage(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  const { authenticator, db } = gateway;
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/usage",
      summary: "What the key's tenant has used",
      tags,
      security,
      middleware: [requireScope(authenticator, "read")] as const,
      request: { query: usageQuery },
      responses: { ...answers, ...problems("bad_request") },
    }),
    (c) => answer(c, gateway, c.get("caller").tenantId, c.req.valid("query")),
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/admin/v1/tenants/{tenant}/usage",
      summary: "What a tenant has used",
      tags,
      security,
      middleware: [requireScope(authenticator, "admin")] as const,
      request: {
        params: z.object({
          tenant: z.string().openapi({ description: "id or name; the id also of a removed one" }),
        }),
        query: usageQuery,
      },
      responses: { ...answers, ...problems("bad_request", "tenant_not_found") },
    }),
    async (c) => {
      const tenantId = await whoseUsage(db, c.get("caller"), c.req.valid("param").tenant);
      return answer(c, gateway, tenantId, c.req.valid("query"));
    },
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/admin/v1/usage/reconciliation",
      summary: "Compare all usage with the records that it was made of",
      tags,
      security,
      middleware: [requireOperator(authenticator)] as const,
      request: { query: rangeQuery },
      responses: {
        200: {
          description: "where they differ",
          content: { "application/json": { schema: reconciliationSchema } },
        },
        ...problems("bad_request"),
      },
    }),
    async (c) => {
      const { from, to } = c.req.valid("query");
      const { range, records, differences } = await reconcileUsage(db, hourRange(from, to));
      return c.json(
        {
          from: rfc3339(range.fromMs),
          to: rfc3339(range.toMs),
          records,
          differences: differences.map(({ tenantId, hourMs, ...rest }) => ({
            tenant: tenantId,
            hour: rfc3339(hourMs),
            ...rest,
          })),
        },
        200,
      );
    },
  );
}

const shown = ({ invocations, mibMs, cpuUs, egressBytes }: Used) => ({
  invocations,
  gbSeconds: mibMs / MIB_MS_PER_GB_SECOND,
  cpuSeconds: cpuUs / CPU_US_PER_SECOND,
  egressBytes,
});

async function answer(
  c: Context<GatewayEnv>,
  { db }: GatewayContext,
  tenantId: string,
  query: z.infer<typeof usageQuery>,
) {
  const range = hourRange(query.from, query.to);
  const [from, to] = [rfc3339(range.fromMs), rfc3339(range.toMs)];
  c.header("vary", "Accept");
  const format =
    query.format ??
    (accepts(c, {
      header: "Accept",
      supports: ["application/json", "text/csv"],
      default: "application/json",
    }) === "text/csv"
      ? "csv"
      : "json");
  if (format === "csv") {
    const hours = (at: string): string => at.slice(0, 13).replaceAll(":", "");
    const csv = c.body(await usageCsv(db, tenantId, range), 200, {
      "content-type": "text/csv; charset=utf-8; header=present",
      "content-disposition": `attachment; filename="usage-${tenantId}-${hours(from)}-${hours(to)}.csv"`,
    });
    return notJson(csv);
  }
  const firstMs = query.after === undefined ? range.fromMs : hourAfter(query.after, range.fromMs);
  const lastMs = Math.min(range.toMs, firstMs + query.limit * HOUR_MS);
  const [totals, hours, functions] = await Promise.all([
    readUsageTotals(db, tenantId, range),
    firstMs < lastMs ? readUsageHours(db, tenantId, { fromMs: firstMs, toMs: lastMs }) : [],
    query.by === "function" ? readUsageByFunction(db, tenantId, range) : undefined,
  ]);
  const { storageBytes, storageByteHours, byPath, byStatus } = totals;
  return c.json(
    {
      tenant: tenantId,
      from,
      to,
      totals: { ...shown(totals), storageBytes, storageByteHours, byPath, byStatus },
      hours: hours.map((hour) => ({
        hour: rfc3339(hour.hourMs),
        ...shown(hour),
        storageBytes: hour.storageBytes,
        byPath: hour.byPath,
        byStatus: hour.byStatus,
      })),
      ...(functions
        ? {
            functions: functions.map((one) => ({
              functionId: one.functionId,
              ...(one.name === undefined ? {} : { name: one.name }),
              ...shown(one),
            })),
          }
        : {}),
      ...(lastMs < range.toMs && hours.length > 0 ? { next: rfc3339(lastMs - HOUR_MS) } : {}),
    },
    200,
  );
}

const hourAfter = (text: string, fromMs: number): number =>
  Math.max(fromMs, Math.floor(Date.parse(text) / HOUR_MS) * HOUR_MS + HOUR_MS);
