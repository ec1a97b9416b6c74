import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { liveSandboxSchema } from "#contracts/live-sandbox";
import { nodeHeartbeatSchema } from "#queue/nodes";
import { liveNodes, liveSandboxes, queueStates } from "../../admin/fleet.ts";
import { tenantOf } from "../../admin/tenant-of.ts";
import type { GatewayContext } from "../../gateway-context.ts";
import { requireOperator } from "../../middleware/admin.ts";
import type { GatewayEnv } from "../../middleware/caller.ts";
import { problems } from "../problem-answers.ts";
import { limitQuery } from "./admin-schemas.ts";
import { json, security } from "./answers.ts";

const tags = ["fleet"];

const nodeListSchema = z
  .object({
    nodes: z.array(
      nodeHeartbeatSchema
        .extend({ ageMs: z.number().describe("since its last heartbeat") })
        .openapi("Node"),
    ),
  })
  .openapi("NodeList");

const sandboxListSchema = z
  .object({
    sandboxes: z.array(
      liveSandboxSchema.extend({ node: z.string() }).openapi("LiveSandbox", {
        description:
          "prepared: waits for its function; pooled: came with it, and no call has had it; ending: takes nothing new",
      }),
    ),
    total: z.number().int().describe("how many there are; a node lists at most 1000"),
    running: z.number().int().describe("invocations that nodes have taken and not ended"),
    silent: z.array(z.string()).describe("nodes that live and did not answer within a second"),
  })
  .openapi("SandboxList");

const sandboxQuery = z.object({
  limit: limitQuery.default(1000),
  tenant: z.string().min(1).max(100).optional().openapi({ description: "id or name" }),
});

const queueListSchema = z
  .object({
    queues: z.array(
      z.object({
        name: z.string(),
        waiting: z.number().int().describe("invocations that no worker has taken"),
        active: z.number().int(),
        oldestWaitMs: z
          .number()
          .optional()
          .describe("how long the first has waited; absent when none waits"),
      }),
    ),
  })
  .openapi("QueueList");

/** Nodes, their sandboxes, and the queues before them. */
export function registerFleet(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  const { authenticator, db } = gateway;
  const operator = requireOperator(authenticator);

  app.openapi(
    createRoute({
      method: "get",
      path: "/admin/v1/nodes",
      summary: "Nodes that spoke within the last 10 s",
      tags,
      security,
      middleware: [operator] as const,
      responses: { 200: json(nodeListSchema, "in order of id"), ...problems() },
    }),
    async (c) => {
      return c.json({ nodes: await liveNodes(gateway) }, 200);
    },
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/admin/v1/sandboxes",
      summary: "Live sandboxes of all nodes, as the nodes tell at this moment",
      tags,
      security,
      middleware: [operator] as const,
      request: { query: sandboxQuery },
      responses: {
        200: json(sandboxListSchema, "by node"),
        ...problems("bad_request", "tenant_not_found"),
      },
    }),
    async (c) => {
      const { limit, tenant } = c.req.valid("query");
      const filter =
        tenant === undefined ? {} : { tenantId: (await tenantOf(db, c.get("caller"), tenant)).id };
      return c.json(await liveSandboxes(gateway, filter, limit), 200);
    },
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/admin/v1/queues",
      summary: "How each queue stands",
      tags,
      security,
      middleware: [operator] as const,
      responses: { 200: json(queueListSchema, "by name"), ...problems() },
    }),
    async (c) => c.json({ queues: await queueStates(gateway) }, 200),
  );
}
