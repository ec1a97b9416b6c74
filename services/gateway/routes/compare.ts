import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import {
  type CompareRequest,
  type Comparison,
  compareRequestSchema,
  comparisonSchema,
} from "#contracts/comparison";
import { LIMITS } from "#contracts/function";
import { type CallTarget, resolveFunction } from "#db/functions";
import { CloisterError } from "#errors/catalogue";
import { type ComparisonOptions, compare } from "../compare/comparison.ts";
import { MeasuredCall, type MeasuredRequest } from "../compare/measured-call.ts";
import type { GatewayContext } from "../gateway-context.ts";
import { parseCallAddress } from "../invoke/address.ts";
import { parseFunctionAddress } from "../invoke/function-resolver.ts";
import { type GatewayEnv, requireScope } from "../middleware/caller.ts";
import { asCloisterError, problemOf } from "../problem.ts";
import { problems } from "./problem-answers.ts";

/** They share the processors they measure: more at once would measure each other. */
const MOST_AT_ONCE = 2;
/** A comment this often tells proxies that it goes on, ms. */
const KEEP_ALIVE_MS = 15_000;

/** Both paths side by side, by invocations of the caller's own function. */
export function registerCompare(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  const running = new Set<string>();
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
      const { tenantId } = c.get("caller");
      const request = c.req.valid("json");
      const { name, version } = parseFunctionAddress(request.function);
      const target = await resolveFunction(gateway.db, tenantId, name, version);
      if (!target)
        throw new CloisterError(version === undefined ? "function_not_found" : "version_not_found");
      const call = callOf(request, target, gateway.publicUrl);
      if (running.has(tenantId))
        throw new CloisterError("conflict", "Another comparison of this tenant is still running");
      if (running.size >= MOST_AT_ONCE)
        throw new CloisterError("capacity_exhausted", "Others compare at this moment");
      running.add(tenantId);
      const work = (options: Omit<ComparisonOptions, "run">): Promise<Comparison> =>
        compare(
          {
            name: target.name,
            version: target.version,
            call: `${call.kind === "event" ? "event" : call.head.method} ${call.kind === "event" ? (call.body && "text" in call.body ? call.body.text.slice(0, 100) : "") : call.head.path}`,
            config: target.config,
            n: request.n,
            paths: request.paths,
          },
          {
            ...options,
            run: (path, start) =>
              new MeasuredCall(gateway.calls, target.config.timeoutMs).run(
                { ...call, path, ...(start === undefined ? {} : { start }) },
                options.signal,
              ),
          },
        ).finally(() => running.delete(tenantId));
      if (c.req.header("accept")?.includes("text/event-stream"))
        // biome-ignore lint/suspicious/noExplicitAny: an event stream is no JSON, which the route's type cannot tell.
        return events(gateway, work) as any;
      const signal = AbortSignal.any([gateway.drained, c.req.raw.signal]);
      return c.json(await work({ signal, onProgress() {} }), 200);
    },
  );
}

/** What every run sends. Throws `bad_request`. */
function callOf(
  { data, request }: CompareRequest,
  target: CallTarget,
  publicUrl: string,
): Pick<MeasuredRequest, "target" | "kind" | "head" | "body"> {
  if (data !== undefined) {
    const text = JSON.stringify(data);
    if (Buffer.byteLength(text) > LIMITS.inlineBodyBytes)
      throw new CloisterError("bad_request", "data may have 64 KiB as JSON");
    return {
      target,
      kind: "event",
      head: {
        method: "POST",
        url: `${publicUrl}/`,
        path: "/",
        headers: [["content-type", "application/json"]],
      },
      body: { text },
    };
  }
  const { method = "GET", path: asked = "/", body } = request ?? {};
  const { path } = parseCallAddress(`/f/${target.name}${asked}`);
  if (body !== undefined && (method === "GET" || method === "HEAD"))
    throw new CloisterError("bad_request", `A ${method} request has no body; name another method`);
  return {
    target,
    kind: "http",
    head: { method, url: `${publicUrl}${path}`, path, headers: [["accept", "*/*"]] },
    body: body === undefined || body === "" ? undefined : { text: body },
  };
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
