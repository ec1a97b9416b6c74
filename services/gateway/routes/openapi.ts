import { type OpenAPIHono, z } from "@hono/zod-openapi";
import { pathSchema } from "#contracts/function";
import type { GatewayEnv } from "../middleware/caller.ts";
import { problems } from "./problem-answers.ts";

const functionAnswer = {
  description: "the function's own answer, streamed; its own status may be any from 200 to 599",
  headers: z.object({
    "Cloister-Invocation-Id": z.string(),
    "Cloister-Isolation": pathSchema,
    "Cloister-Start": z.enum(["cold", "prepared", "restored", "reset", "warm"]),
    "Cloister-Version": z.string(),
    "Server-Timing": z.string().describe("phases, ms"),
    "RateLimit-Policy": z.string().optional().describe("limits, when there are any"),
    RateLimit: z.string().optional().describe("what is left of them"),
  }),
};

const isolationHeader = z.object({
  "cloister-isolation": pathSchema.optional().openapi({ description: "ask for this path" }),
});

const eventHeaders = isolationHeader.extend({
  "cloister-trace": z.literal("1").optional().openapi({
    description: "of a micro-VM: each system call is in the log, in the stream `trace`",
  }),
});

const functionErrors = problems(
  ...(["bad_request", "function_not_found", "version_not_found", "body_too_large"] as const),
  ...(["isolation_not_allowed", "function_error", "function_init_error"] as const),
  ...(["function_no_handler", "function_bad_response", "function_out_of_memory"] as const),
  ...(["function_exited", "function_timeout", "worker_lost", "sandbox_failed"] as const),
  ...(["isolation_unavailable", "capacity_exhausted", "queue_timeout", "draining"] as const),
  ...(["not_implemented", "request_timeout", "quota_exceeded", "backlog_full"] as const),
);

/** The document, with the addresses that are served outside of hono (invoke/invoker.ts). */
export function registerOpenApi(app: OpenAPIHono<GatewayEnv>, publicUrl: string): void {
  const registry = app.openAPIRegistry;
  registry.registerComponent("securitySchemes", "key", { type: "http", scheme: "bearer" });
  for (const method of ["get", "post", "put", "patch", "delete", "head", "options"] as const)
    registry.registerPath({
      method,
      path: "/f/{function}/{path}",
      summary: "Call a function over HTTP",
      tags: ["invocations"],
      security: [{ key: [] }, {}],
      request: {
        params: z.object({
          function: z.string().openapi({ description: "name, or name@version" }),
          path: z.string().openapi({ description: "whatever the function serves" }),
        }),
        headers: isolationHeader,
      },
      responses: { default: functionAnswer, ...functionErrors },
    });
  registry.registerPath({
    method: "post",
    path: "/v1/functions/{name}/invocations",
    summary: "Call a function with a JSON event",
    tags: ["invocations"],
    security: [{ key: [] }],
    request: {
      params: z.object({ name: z.string().openapi({ description: "name, or name@version" }) }),
      headers: eventHeaders,
      body: { required: false, content: { "application/json": { schema: z.any() } } },
    },
    responses: {
      200: functionAnswer,
      ...functionErrors,
      ...problems("unsupported_media_type", "trace_unavailable"),
    },
  });
  app.doc31("/openapi.json", {
    openapi: "3.1.0",
    info: {
      title: "Cloister",
      version: "0.1.0",
      description: "Functions over HTTP, in namespaced containers and KVM micro-VMs.",
      license: { name: "Apache-2.0", url: "https://www.apache.org/licenses/LICENSE-2.0" },
    },
    servers: [{ url: publicUrl }],
  });
}
