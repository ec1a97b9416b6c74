import type { Hono } from "hono";
import { functionNameSchema } from "#contracts/function";
import { listFunctions, listVersions } from "#db/functions";
import { recentInvocations } from "#db/recent-invocations";
import type { GatewayContext } from "../../gateway-context.ts";
import { snapshotOf } from "../../snapshots/snapshot-of.ts";
import { functionPage, functionsPage } from "../../ui/functions-view.ts";
import { existing } from "../functions.ts";
import { readersOnly, show, tenantFor, type UiContext, type UiEnv } from "./ui-env.ts";

const PAGE = 25;
const MOST_VERSIONS = 20;
const MOST_CALLS = 20;

/** A tenant's functions: one's own, or those of any for the operator. */
export function registerFunctionPages(ui: Hono<UiEnv>, gateway: GatewayContext): void {
  const { db, publicUrl } = gateway;
  const ownerOf = async (c: UiContext) => {
    const viewer = c.get("viewer");
    const { id, name } = await tenantFor(gateway, viewer, c.req.query("tenant"));
    return { id, name, own: id === viewer.tenant.id };
  };

  ui.get("/functions", readersOnly, async (c) => {
    const owner = await ownerOf(c);
    const after = functionNameSchema.safeParse(c.req.query("after")).data;
    const found = await listFunctions(db, owner.id, PAGE + 1, after);
    const rows = await Promise.all(
      found
        .slice(0, PAGE)
        .map(async (one) => ({ one, snapshot: await snapshotOf(gateway, owner.id, one) })),
    );
    const next = found.length > PAGE ? rows.at(-1)?.one.name : undefined;
    return show(c, functionsPage(c.get("viewer"), owner, rows, next));
  });

  ui.get("/functions/:name", readersOnly, async (c) => {
    const owner = await ownerOf(c);
    const one = await existing(gateway, owner.id, c.req.param("name"));
    const [snapshot, versions, recent] = await Promise.all([
      snapshotOf(gateway, owner.id, one),
      listVersions(db, one.id, MOST_VERSIONS),
      recentInvocations(db, { limit: MOST_CALLS, tenantId: owner.id, functionId: one.id }),
    ]);
    const url = `${publicUrl}/f/${one.name}`;
    return show(c, functionPage(c.get("viewer"), { owner, one, snapshot, url, versions, recent }));
  });
}
