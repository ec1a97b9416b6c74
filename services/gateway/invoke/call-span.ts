import type { IncomingMessage } from "node:http";
import type { InvocationJob } from "#contracts/invocation";
import type { CallTarget } from "#db/functions";
import { inTrace, type TraceContext, type Tracing, traceparentOf } from "#telemetry/tracing";
import type { CallOutcome } from "./call-context.ts";

/** Longest text of an attribute. */
const MAX_TEXT = 1024;
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY"]);

/** The span of one request for a function, from its head to the end of its answer. There is one only when traces are on. */
export class CallSpan {
  readonly #tracing: Tracing;
  readonly #context: TraceContext;
  readonly #name: string;
  readonly #attributes: Record<string, string | number | boolean>;

  constructor(tracing: Tracing, request: IncomingMessage) {
    this.#tracing = tracing;
    const { headers, method = "GET", url = "/" } = request;
    const event = url.startsWith("/v1/");
    const route = event ? "/v1/functions/{name}/invocations" : "/f/{function}/{path}";
    const known = METHODS.has(method) ? method : "_OTHER";
    this.#name = `${known === "_OTHER" ? "HTTP" : known} ${route}`;
    this.#context = tracing.enter(headers.traceparent, headers.tracestate, this.#name);
    this.#attributes = {
      "http.request.method": known,
      "http.route": route,
      "url.scheme": "http",
      // The query may hold what is nobody's business.
      "url.path": url.replace(/[?#].*$/s, "").slice(0, MAX_TEXT),
      "faas.trigger": event ? "other" : "http",
    };
  }

  /** What is told to the caller of its trace. */
  get traceresponse(): string {
    return traceparentOf(this.#context);
  }

  /** The function sees this trace and no other; the worker is told only of one that is recorded. */
  into(job: Pick<InvocationJob, "head" | "traceparent" | "tracestate">): void {
    job.head = { ...job.head, headers: inTrace(job.head.headers, this.#context) };
    if (!this.#context.sampled) return;
    job.traceparent = traceparentOf(this.#context);
    if (this.#context.state !== undefined) job.tracestate = this.#context.state;
  }

  /** `beganMs`: wall clock. */
  end(
    id: string,
    beganMs: number,
    httpStatus: number,
    target: CallTarget | undefined,
    outcome: CallOutcome,
  ): void {
    if (!this.#context.sampled) return;
    const { code, meta, durationMs } = outcome;
    const attributes = this.#attributes;
    attributes["faas.invocation_id"] = id;
    attributes["http.response.status_code"] = httpStatus;
    if (target) {
      attributes["faas.invoked_name"] = target.config.name;
      attributes["faas.version"] = String(target.version);
      attributes["cloister.tenant.id"] = target.tenantId;
    }
    if (meta) {
      attributes["cloister.path"] = meta.path;
      attributes["cloister.start"] = meta.start;
    }
    if (code) attributes["error.type"] = code;
    this.#tracing.finished({
      context: this.#context,
      name: this.#name,
      kind: "server",
      beganMs,
      endedMs: beganMs + durationMs,
      attributes,
      // A server's span is no failure where the caller is at fault (semantic conventions for HTTP).
      failed: httpStatus >= 500,
    });
  }
}
