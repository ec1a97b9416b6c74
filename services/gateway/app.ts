import { OpenAPIHono } from "@hono/zod-openapi";
import { CloisterError } from "#errors/catalogue";
import { Comparisons } from "./compare/comparisons.ts";
import type { GatewayContext } from "./gateway-context.ts";
import type { GatewayEnv } from "./middleware/caller.ts";
import { observe } from "./middleware/observe.ts";
import { onError, onInvalid, problemResponse } from "./middleware/problems.ts";
import { registerAdmin } from "./routes/admin/admin.ts";
import { registerCompare } from "./routes/compare.ts";
import { registerDocs } from "./routes/docs.ts";
import { registerFunctions } from "./routes/functions.ts";
import { registerInvocations } from "./routes/invocations.ts";
import { registerLogs } from "./routes/logs.ts";
import { registerNotYet } from "./routes/not-yet.ts";
import { registerOpenApi } from "./routes/openapi.ts";
import { registerPlacement } from "./routes/placement.ts";
import { registerQuotas } from "./routes/quotas.ts";
import { registerService } from "./routes/service.ts";
import { registerUi } from "./routes/ui/ui.ts";
import { registerUsage } from "./routes/usage.ts";

/** Addresses that answer while the gateway drains. */
const ALWAYS = new Set(["/healthz", "/readyz", "/metrics"]);

/** Everything the gateway serves but the invocations themselves. */
export function createApp(gateway: GatewayContext): OpenAPIHono<GatewayEnv> {
  const app = new OpenAPIHono<GatewayEnv>({ defaultHook: onInvalid });
  app.onError(onError(gateway.onProblem));
  app.use(observe(gateway.metrics));
  app.use(async (c, next) => {
    if (gateway.draining() && !ALWAYS.has(c.req.path)) throw new CloisterError("draining");
    await next();
  });
  const comparisons = new Comparisons(gateway);
  registerService(app, gateway);
  registerFunctions(app, gateway);
  registerPlacement(app, gateway);
  registerLogs(app, gateway);
  registerInvocations(app, gateway);
  registerCompare(app, gateway, comparisons);
  registerUsage(app, gateway);
  registerQuotas(app, gateway);
  registerAdmin(app, gateway);
  registerUi(app, gateway, comparisons);
  registerNotYet(app);
  registerDocs(app);
  registerOpenApi(app, gateway.publicUrl);
  app.notFound((c) => problemResponse(refusal(app, c.req.path, c.req.method)));
  return app;
}

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/** An address that exists for another method is a 405. */
function refusal(app: OpenAPIHono<GatewayEnv>, path: string, method: string): CloisterError {
  // Middleware matches everything; what is left beside it is a route.
  const middleware = app.router.match("TRACE", path)[0].length;
  const others = METHODS.filter(
    (other) => other !== method && app.router.match(other, path)[0].length > middleware,
  );
  if (/^\/v1\/functions\/[^/]+\/invocations$/.test(path)) others.push("POST");
  return others.length > 0
    ? new CloisterError("method_not_allowed", `${path.slice(0, 200)} takes ${others.join(", ")}`)
    : new CloisterError("not_found");
}
