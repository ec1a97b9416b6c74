import type { CompareRequest, Comparison } from "#contracts/comparison";
import { LIMITS } from "#contracts/function";
import { type CallTarget, resolveFunction } from "#db/functions";
import { CloisterError } from "#errors/catalogue";
import type { GatewayContext } from "../gateway-context.ts";
import { parseCallAddress } from "../invoke/address.ts";
import { parseFunctionAddress } from "../invoke/function-resolver.ts";
import { type ComparisonOptions, compare } from "./comparison.ts";
import { MeasuredCall, type MeasuredRequest } from "./measured-call.ts";

/** They share the processors they measure: more at once would measure each other. */
const MOST_AT_ONCE = 2;

/** What is compared, its place taken. */
export interface BegunComparison {
  target: CallTarget;
  /** What every run sends, in words. */
  call: string;
  /** Runs it, once; the place is free again when it settles. */
  run(options: Omit<ComparisonOptions, "run">): Promise<Comparison>;
}

/** The comparisons of this gateway, for the API and the dashboard alike. */
export class Comparisons {
  readonly #gateway: Pick<GatewayContext, "db" | "calls" | "publicUrl">;
  /** Tenants. */
  readonly #running = new Set<string>();

  constructor(gateway: Pick<GatewayContext, "db" | "calls" | "publicUrl">) {
    this.#gateway = gateway;
  }

  /** Takes the tenant's place; whoever begins one must run it. Rejects when there is none, or nothing to compare. */
  async begin(tenantId: string, request: CompareRequest): Promise<BegunComparison> {
    const { db, calls, publicUrl } = this.#gateway;
    const { name, version } = parseFunctionAddress(request.function);
    const target = await resolveFunction(db, tenantId, name, version);
    if (!target)
      throw new CloisterError(version === undefined ? "function_not_found" : "version_not_found");
    const sent = callOf(request, target, publicUrl);
    if (this.#running.has(tenantId))
      throw new CloisterError("conflict", "Another comparison of this tenant is still running");
    if (this.#running.size >= MOST_AT_ONCE)
      throw new CloisterError("capacity_exhausted", "Others compare at this moment");
    this.#running.add(tenantId);
    const call = wordsOf(sent);
    const { config } = target;
    const { n, paths } = request;
    return {
      target,
      call,
      run: (options) =>
        compare(
          { name: target.name, version: target.version, call, config, n, paths },
          {
            ...options,
            run: (path, start) =>
              new MeasuredCall(calls, config.timeoutMs).run(
                { ...sent, path, ...(start === undefined ? {} : { start }) },
                options.signal,
              ),
          },
        ).finally(() => this.#running.delete(tenantId)),
    };
  }
}

type SentCall = Pick<MeasuredRequest, "target" | "kind" | "head" | "body">;

const wordsOf = ({ kind, head, body }: SentCall): string =>
  kind === "event"
    ? `event ${body && "text" in body ? body.text.slice(0, 100) : ""}`
    : `${head.method} ${head.path}`;

/** What every run sends. Throws `bad_request`. */
function callOf(
  { data, request }: CompareRequest,
  target: CallTarget,
  publicUrl: string,
): SentCall {
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
