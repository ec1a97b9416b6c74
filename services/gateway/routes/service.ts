import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { pingDatabase } from "#db/housekeeping";
import { readNodes } from "#queue/nodes";
import type { GatewayContext } from "../gateway-context.ts";
import type { GatewayEnv } from "../middleware/caller.ts";

const readinessSchema = z
  .object({
    ready: z.boolean(),
    missing: z.array(z.string()).describe("postgresql, redis, worker or gateway (when it drains)"),
  })
  .openapi("Readiness");

/** Longest a part may take to say that it is there, ms. */
const PROBE_MS = 2000;

/** Whether the service lives, is ready, and what it counts. */
export function registerService(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  app.openapi(
    createRoute({
      method: "get",
      path: "/healthz",
      summary: "Whether the gateway lives",
      tags: ["service"],
      responses: {
        200: {
          description: "it does",
          content: { "application/json": { schema: z.object({ alive: z.boolean() }) } },
        },
      },
    }),
    (c) => c.json({ alive: true }, 200),
  );

  const answer = (description: string) => ({
    description,
    content: { "application/json": { schema: readinessSchema } },
  });
  app.openapi(
    createRoute({
      method: "get",
      path: "/readyz",
      summary: "Whether functions can be run",
      tags: ["service"],
      responses: { 200: answer("they can"), 503: answer("what is missing") },
    }),
    async (c) => {
      const { db, producer } = gateway;
      const [database, nodes] = await Promise.all([
        isThere(pingDatabase(db)),
        withinProbe(readNodes(producer.redis)).catch(() => undefined),
      ]);
      const missing: string[] = [];
      if (!database) missing.push("postgresql");
      if (!nodes) missing.push("redis");
      else if (!nodes.some(({ draining, sandboxd }) => sandboxd && !draining))
        missing.push("worker");
      if (gateway.draining()) missing.push("gateway");
      const ready = missing.length === 0;
      return c.json({ ready, missing }, ready ? 200 : 503);
    },
  );

  app.get("/metrics", async () => {
    const { registry } = gateway.metrics;
    return new Response(await registry.metrics(), {
      headers: { "content-type": registry.contentType },
    });
  });
}

const isThere = (probe: Promise<unknown>): Promise<boolean> =>
  withinProbe(probe).then(
    () => true,
    () => false,
  );

async function withinProbe<T>(probe: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("no answer in time")), PROBE_MS);
  });
  probe.catch(() => {});
  return Promise.race([probe, late]).finally(() => clearTimeout(timer));
}
