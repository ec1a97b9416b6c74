import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { logChannel } from "#contracts/invocation";
import { readLogs } from "#db/logs";
import { CloisterError } from "#errors/catalogue";
import type { GatewayContext } from "../gateway-context.ts";
import { type GatewayEnv, requireScope } from "../middleware/caller.ts";
import { logPageSchema, logsQuery, nameParameter } from "./function-schemas.ts";
import { existing } from "./functions.ts";
import { followLog } from "./log-stream.ts";
import { notJson } from "./not-json.ts";
import { problems } from "./problem-answers.ts";

/** Followers of one gateway at once: each holds a connection for as long as it likes. */
const MAX_FOLLOWERS = 1000;

/** Stored lines as a page, or new ones as they are written. */
export function registerLogs(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  let followers = 0;
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/functions/{name}/logs",
      summary: "What a function printed",
      description:
        "Stored lines, oldest first; with follow=true or Accept: text/event-stream, new lines as server-sent events of LogEntry lists.",
      tags: ["functions"],
      security: [{ key: [] }],
      middleware: [requireScope(gateway.authenticator, "read")],
      request: { params: nameParameter, query: logsQuery },
      responses: {
        200: {
          description: "lines",
          content: { "application/json": { schema: logPageSchema } },
        },
        ...problems("bad_request", "function_not_found", "capacity_exhausted"),
      },
    }),
    async (c) => {
      const { limit, since, invocation, follow } = c.req.valid("query");
      // Also of a version: its lines are among the function's.
      const name = c.req.valid("param").name.replace(/@.*$/s, "");
      const { id } = await existing(gateway, c.get("caller").tenantId, name);
      const sse = c.req.header("accept")?.includes("text/event-stream") === true;
      if (follow === "true" || (follow === undefined && sse)) {
        if (followers >= MAX_FOLLOWERS)
          throw new CloisterError("capacity_exhausted", "Too many callers follow logs");
        followers++;
        return notJson(await followLog(gateway, logChannel(id), () => followers--));
      }
      const entries = await readLogs(gateway.db, id, {
        limit,
        ...(since === undefined ? {} : { sinceMs: since }),
        ...(invocation === undefined ? {} : { invocationId: invocation }),
      });
      return c.json({ entries }, 200);
    },
  );
}
