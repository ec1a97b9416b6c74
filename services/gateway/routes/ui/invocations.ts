import type { Hono } from "hono";
import { functionName } from "#db/functions";
import { readInvocation } from "#db/invocations";
import { readLogs } from "#db/logs";
import { type RecentQuery, recentInvocations } from "#db/recent-invocations";
import { tenantNames } from "#db/tenants";
import { CloisterError } from "#errors/catalogue";
import type { GatewayContext } from "../../gateway-context.ts";
import { invocationPage, invocationsPage } from "../../ui/invocations-view.ts";
import { readersOnly, show, tenantFor, type UiEnv } from "./ui-env.ts";

const PAGE = 50;
const MOST_LINES = 200;

/** Calls that have ended: one's own tenant's, or those of any for the operator. */
export function registerInvocationPages(ui: Hono<UiEnv>, gateway: GatewayContext): void {
  const { db } = gateway;

  ui.get("/invocations", readersOnly, async (c) => {
    const viewer = c.get("viewer");
    const { tenant: asked, before } = c.req.query();
    const all = viewer.operator && asked === "*";
    const tenant = all ? undefined : await tenantFor(gateway, viewer, asked);
    const beforeMs =
      before !== undefined && /^\d{1,15}(\.\d{1,6})?$/.test(before) ? Number(before) : undefined;
    const query: RecentQuery = {
      limit: PAGE + 1,
      ...(tenant ? { tenantId: tenant.id } : {}),
      ...(beforeMs === undefined ? {} : { beforeMs }),
    };
    const rows = await recentInvocations(db, query);
    const found = rows.slice(0, PAGE);
    const names = all
      ? await tenantNames(db, [...new Set(found.map(({ tenantId }) => tenantId))])
      : undefined;
    const next = rows.length > PAGE ? found.at(-1)?.acceptedAtMs : undefined;
    const shown = tenant && { name: tenant.name, own: tenant.id === viewer.tenant.id };
    return show(c, invocationsPage(viewer, { found, tenant: shown, names, next }));
  });

  ui.get("/invocations/:id", readersOnly, async (c) => {
    const viewer = c.get("viewer");
    const id = c.req.param("id");
    const { id: tenantId } = await tenantFor(gateway, viewer, c.req.query("tenant"));
    const record = /^inv_[0-9a-v]{26}$/.test(id)
      ? await readInvocation(db, tenantId, id)
      : undefined;
    if (!record)
      throw new CloisterError(
        "not_found",
        `There is no record of ${id.slice(0, 100)}; that of one that has just ended may still be on its way`,
      );
    const [name, logs] = await Promise.all([
      functionName(db, record.functionId),
      readLogs(db, record.functionId, {
        limit: MOST_LINES,
        invocationId: id,
        sinceMs: record.acceptedAtMs - 1000,
        maxBytes: 256 * 1024,
      }),
    ]);
    return show(c, invocationPage(viewer, record, name, logs));
  });
}
