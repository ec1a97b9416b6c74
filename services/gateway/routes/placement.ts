import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { resolveFunction } from "#db/functions";
import { CloisterError } from "#errors/catalogue";
import type { GatewayContext } from "../gateway-context.ts";
import { parseFunctionAddress } from "../invoke/function-resolver.ts";
import { wantedPath } from "../invoke/request-headers.ts";
import { type GatewayEnv, requireScope } from "../middleware/caller.ts";
import { placementOf } from "../placement/placement-of.ts";
import { nameParameter } from "./function-schemas.ts";
import { placementQuery, placementSchema } from "./placement-schemas.ts";
import { problems } from "./problem-answers.ts";

/** Where a call would run, and why, without running it. */
export function registerPlacement(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/functions/{name}/placement",
      summary: "Which path a call would take, and why",
      description:
        "Asks every live node; one that does not answer within a second is judged by its last heartbeat. Runs nothing.",
      tags: ["functions"],
      security: [{ key: [] }],
      middleware: [requireScope(gateway.authenticator, "read")],
      request: { params: nameParameter, query: placementQuery },
      responses: {
        200: {
          description: "the decision",
          content: { "application/json": { schema: placementSchema } },
        },
        ...problems(
          ...(["bad_request", "function_not_found", "version_not_found"] as const),
          "dependency_unavailable",
        ),
      },
    }),
    async (c) => {
      const { name, version } = parseFunctionAddress(c.req.valid("param").name);
      const wanted =
        c.req.valid("query").isolation ?? wantedPath(c.req.header("cloister-isolation"));
      const target = await resolveFunction(gateway.db, c.get("caller").tenantId, name, version);
      if (!target)
        throw new CloisterError(version === undefined ? "function_not_found" : "version_not_found");
      return c.json(await placementOf(gateway, target, wanted), 200);
    },
  );
}
