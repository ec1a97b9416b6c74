import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { type Comparison, compareRequestSchema, comparisonSchema } from "#contracts/comparison";
import type { ComparisonOptions } from "../compare/comparison.ts";
import type { Comparisons } from "../compare/comparisons.ts";
import type { GatewayContext } from "../gateway-context.ts";
import { type GatewayEnv, requireScope } from "../middleware/caller.ts";
import { asCloisterError, problemOf } from "../problem.ts";
import { notJson } from "./not-json.ts";
import { problems } from "./problem-answers.ts";

/** A comment this often tells proxies that it goes on, ms. */
const KEEP_ALIVE_MS = 15_000;

/** Both paths side by side, by invocations of the caller's own function. */
export function registerCompare(
  app: OpenAPIHono<GatewayEnv>,
  gateway: GatewayContext,
  comparisons: Comparisons,
): void {
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/compare",
      summary: "Compare a function's two paths",
      description:
        "Runs the function n times for each start of each path, interleaved. Each run is an invocation like any other. With Accept: text/event-stream, events `progress` while it runs and one `result` (or `problem`) at the end; else the result alone.",
      tags: ["functions"],
      security: [{ key: [] }],
      middleware: [requireScope(gateway.authenticator, "invoke")],
      request: {
        body: {
          required: true,
          content: { "application/json": { schema: compareRequestSchema } },
        },
      },
      responses: {
        200: {
          description: "what was measured",
          content: {
            "application/json": { schema: comparisonSchema },
            "text/event-stream": { schema: z.string() },
          },
        },
        ...problems(
          ...(["bad_request", "function_not_found", "version_not_found"] as const),
          ...(["conflict", "capacity_exhausted", "quota_exceeded"] as const),
        ),
      },
    }),
    async (c) => {
      const { run } = await comparisons.begin(c.get("caller").tenantId, c.req.valid("json"));
      if (c.req.header("accept")?.includes("text/event-stream"))
        return notJson(events(gateway, run));
      const signal = AbortSignal.any([gateway.drained, c.req.raw.signal]);
      return c.json(await run({ signal, onProgress() {} }), 200);
    },
  );
}

/** Progress, and the result at the end, as server-sent events. A client that goes away ends the run. */
function events(
  gateway: Pick<GatewayContext, "drained" | "onProblem">,
  work: (options: Omit<ComparisonOptions, "run">) => Promise<Comparison>,
): Response {
  const gone = new AbortController();
  const encoder = new TextEncoder();
  let timer: NodeJS.Timeout | undefined;
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      let open = true;
      const say = (text: string): void => {
        if (open && !gone.signal.aborted) controller.enqueue(encoder.encode(text));
      };
      const event = (name: string, data: unknown): void =>
        say(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
      timer = setInterval(() => say(": still here\n\n"), KEEP_ALIVE_MS);
      say(": listening\n\n");
      work({
        signal: AbortSignal.any([gateway.drained, gone.signal]),
        onProgress: (progress) => event("progress", progress),
      })
        .then(
          (result) => event("result", result),
          (error: unknown) =>
            event("problem", problemOf(asCloisterError(error, gateway.onProblem))),
        )
        .finally(() => {
          clearInterval(timer);
          open = false;
          if (!gone.signal.aborted) controller.close();
        });
    },
    cancel() {
      clearInterval(timer);
      gone.abort();
    },
  });
  return new Response(stream, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
  });
}
