import type { Hono } from "hono";
import { functionNameSchema } from "#contracts/function";
import { type FunctionSummary, listFunctions, listVersions, resolveFunction } from "#db/functions";
import { recentInvocations } from "#db/recent-invocations";
import { CloisterError } from "#errors/catalogue";
import type { GatewayContext } from "../../gateway-context.ts";
import { placementOf } from "../../placement/placement-of.ts";
import { snapshotOf } from "../../snapshots/snapshot-of.ts";
import { type FunctionRow, functionPage, functionsPage } from "../../ui/functions-view.ts";
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

  /** What only nodes can tell of a function. */
  const looked = async (tenantId: string, one: FunctionSummary): Promise<FunctionRow> => {
    const target = await resolveFunction(db, tenantId, one.name, one.version);
    if (!target) throw new CloisterError("function_not_found", `${one.name} was deleted just now`);
    const [snapshot, placement] = await Promise.all([
      snapshotOf(gateway, tenantId, one),
      placementOf(gateway, target, undefined),
    ]);
    return { one, snapshot, placement };
  };

  ui.get("/functions", readersOnly, async (c) => {
    const owner = await ownerOf(c);
    const after = functionNameSchema.safeParse(c.req.query("after")).data;
    const found = await listFunctions(db, owner.id, PAGE + 1, after);
    const rows = await Promise.all(found.slice(0, PAGE).map((one) => looked(owner.id, one)));
    const next = found.length > PAGE ? rows.at(-1)?.one.name : undefined;
    return show(c, functionsPage(c.get("viewer"), owner, rows, next));
  });

  ui.get("/functions/:name", readersOnly, async (c) => {
    const owner = await ownerOf(c);
    const one = await existing(gateway, owner.id, c.req.param("name"));
    const [row, versions, recent] = await Promise.all([
      looked(owner.id, one),
      listVersions(db, one.id, MOST_VERSIONS),
      recentInvocations(db, { limit: MOST_CALLS, tenantId: owner.id, functionId: one.id }),
    ]);
    const url = `${publicUrl}/f/${one.name}`;
    return show(c, functionPage(c.get("viewer"), { ...row, owner, url, versions, recent }));
  });
}
