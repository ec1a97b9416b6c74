import type { MiddlewareHandler } from "hono";
import { routePath } from "hono/route";
import type { GatewayMetrics } from "../metrics.ts";

/** Counts each request under its route's pattern. */
export const observe =
  (metrics: GatewayMetrics): MiddlewareHandler =>
  async (c, next) => {
    const beganMs = performance.now();
    await next();
    const pattern = routePath(c, -1);
    const route = pattern === "*" || pattern === "/*" ? "none" : pattern;
    metrics.answered(route, c.res.status, performance.now() - beganMs);
  };
