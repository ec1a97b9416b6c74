import type { OpenAPIHono } from "@hono/zod-openapi";
import { Hono } from "hono";
import { csrf } from "hono/csrf";
import { HTTPException } from "hono/http-exception";
import { CloisterError } from "#errors/catalogue";
import type { Comparisons } from "../../compare/comparisons.ts";
import type { GatewayContext } from "../../gateway-context.ts";
import type { GatewayEnv } from "../../middleware/caller.ts";
import { knownError } from "../../middleware/problems.ts";
import { assetAt } from "../../ui/assets.ts";
import { problemPage } from "../../ui/problem-view.ts";
import type { Viewer } from "../../ui/viewer.ts";
import { registerAuditPages } from "./audit.ts";
import { registerComparePages } from "./compare.ts";
import { registerFleetPages } from "./fleet.ts";
import { registerFunctionPages } from "./functions.ts";
import { registerInvocationPages } from "./invocations.ts";
import { registerKeyPages } from "./keys.ts";
import { registerLivePages } from "./live.ts";
import { registerOverview } from "./overview.ts";
import { registerQuotaPages } from "./quota.ts";
import { registerSignIn } from "./sign-in.ts";
import { registerTenantPages } from "./tenants.ts";
import type { UiEnv } from "./ui-env.ts";
import { registerUsagePages } from "./usage.ts";

/** Files and forms of this host alone, and nothing inline. */
const HEADERS: readonly [string, string][] = [
  [
    "content-security-policy",
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  ],
  ["x-content-type-options", "nosniff"],
  ["x-frame-options", "DENY"],
  // Of this host's own pages, so that a form still names its origin.
  ["referrer-policy", "same-origin"],
  ["cross-origin-opener-policy", "same-origin"],
  ["cross-origin-resource-policy", "same-origin"],
  ["permissions-policy", "camera=(), geolocation=(), microphone=()"],
  // Unless the answer says otherwise.
  ["cache-control", "no-store"],
];

/** The dashboard: pages for people, made here of what the API's routes are made of. */
export function registerUi(
  app: OpenAPIHono<GatewayEnv>,
  gateway: GatewayContext,
  comparisons: Comparisons,
): void {
  const ui = new Hono<UiEnv>();
  ui.onError((error, c) => {
    const known =
      error instanceof HTTPException
        ? new CloisterError("forbidden", "This form did not come from a page of this dashboard")
        : knownError(error, gateway.onProblem);
    return c.html(problemPage(known, c.get("viewer") as Viewer | undefined), known.status as 500);
  });
  ui.use(async (c, next) => {
    await next();
    for (const [name, value] of HEADERS)
      if (!c.res.headers.has(name)) c.res.headers.set(name, value);
  });
  ui.get("/assets/:file", (c) => {
    const asset = assetAt(c.req.path);
    if (!asset) throw new CloisterError("not_found");
    return c.body(asset.content, 200, {
      "content-type": asset.type,
      "cache-control": "public, max-age=31536000, immutable",
    });
  });
  const ownHost = new URL(gateway.publicUrl).host;
  ui.use(
    csrf({
      // A proxy may speak https for us, so that only the host can be compared.
      origin: (origin, c) => {
        const host = URL.canParse(origin) ? new URL(origin).host : "";
        return host !== "" && (host === c.req.header("host") || host === ownHost);
      },
    }),
  );
  const door = registerSignIn(ui, gateway);
  registerOverview(ui, gateway);
  registerTenantPages(ui, gateway);
  registerKeyPages(ui, gateway);
  registerQuotaPages(ui, gateway);
  registerLivePages(ui, gateway, door);
  registerFunctionPages(ui, gateway);
  registerComparePages(ui, gateway, { comparisons, door });
  registerInvocationPages(ui, gateway);
  registerUsagePages(ui, gateway);
  registerFleetPages(ui, gateway);
  registerAuditPages(ui, gateway);
  ui.all("*", () => {
    throw new CloisterError("not_found", "There is no such page");
  });
  app.get("/ui/", (c) => c.redirect("/ui", 301));
  app.route("/ui", ui);
}
