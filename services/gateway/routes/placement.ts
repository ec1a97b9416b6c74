import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { decidePlacement } from "#contracts/placement";
import { resolveFunction } from "#db/functions";
import { CloisterError } from "#errors/catalogue";
import { readNodes } from "#queue/nodes";
import type { GatewayContext } from "../gateway-context.ts";
import { parseFunctionAddress } from "../invoke/function-resolver.ts";
import { wantedPath } from "../invoke/request-headers.ts";
import { type GatewayEnv, requireScope } from "../middleware/caller.ts";
import { nameParameter, placementQuery, placementSchema } from "./function-schemas.ts";
import { problems } from "./problem-answers.ts";

/** Where a call would run, and why, without running it. */
export function registerPlacement(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/functions/{name}/placement",
      summary: "Which path a call would take, and why",
      tags: ["functions"],
      security: [{ key: [] }],
      middleware: [requireScope(gateway.authenticator, "read")],
      request: { params: nameParameter, query: placementQuery },
      responses: {
        200: {
          description: "the decision",
          content: { "application/json": { schema: placementSchema } },
        },
        ...problems("bad_request", "function_not_found", "version_not_found"),
      },
    }),
    async (c) => {
      const { name, version } = parseFunctionAddress(c.req.valid("param").name);
      const wanted =
        c.req.valid("query").isolation ?? wantedPath(c.req.header("cloister-isolation"));
      const { tenantId } = c.get("caller");
      const target = await resolveFunction(gateway.db, tenantId, name, version);
      if (!target)
        throw new CloisterError(version === undefined ? "function_not_found" : "version_not_found");
      const nodes = await readNodes(gateway.producer.redis).catch(() => {
        throw new CloisterError("dependency_unavailable", "The queue cannot be reached");
      });
      const decide = (kinds: readonly string[] | undefined) =>
        decidePlacement({
          isolation: target.config.isolation,
          runtime: target.config.runtime,
          wanted,
          ...target.policy,
          kinds,
        });
      const decided = nodes
        .filter(({ draining }) => !draining)
        .map(({ id, sandboxd, kinds }) => ({ id, decision: decide(sandboxd ? kinds : undefined) }));
      const best = decided.find(({ decision }) => "path" in decision) ?? decided[0];
      const decision = best?.decision ?? decide(undefined);
      return c.json(
        {
          path: "path" in decision ? decision.path : null,
          reasons: best
            ? [...decision.reasons]
            : [...decision.reasons, "no worker has reported itself"],
          ...("refused" in decision ? { code: decision.refused } : {}),
          nodes: decided.map((node) => ({
            id: node.id,
            path: "path" in node.decision ? node.decision.path : null,
            reasons: [...node.decision.reasons],
          })),
        },
        200,
      );
    },
  );
}
