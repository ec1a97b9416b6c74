import type { Hono } from "hono";
import { HOUR_MS } from "#contracts/usage";
import { readUsageByFunction, readUsageHours, readUsageTotals } from "#db/usage";
import type { GatewayContext } from "../../gateway-context.ts";
import { usagePage } from "../../ui/usage-view.ts";
import { hourRange } from "../../usage/range.ts";
import { readersOnly, show, tenantFor, type UiEnv } from "./ui-env.ts";

const HOURS = 48;
const MOST_FUNCTIONS = 50;

/** What a tenant has used: one's own, or any for the operator. */
export function registerUsagePages(ui: Hono<UiEnv>, gateway: GatewayContext): void {
  const { db } = gateway;
  ui.get("/usage", readersOnly, async (c) => {
    const viewer = c.get("viewer");
    const { id, name } = await tenantFor(gateway, viewer, c.req.query("tenant"));
    const month = hourRange(undefined, undefined);
    const last = { fromMs: month.toMs - HOURS * HOUR_MS, toMs: month.toMs };
    const [totals, hours, functions] = await Promise.all([
      readUsageTotals(db, id, month),
      readUsageHours(db, id, last),
      readUsageByFunction(db, id, month),
    ]);
    return show(
      c,
      usagePage(viewer, {
        tenant: { name, own: id === viewer.tenant.id },
        totals,
        hours: hours.reverse(),
        functions: functions.slice(0, MOST_FUNCTIONS),
      }),
    );
  });
}
