import { isUtf8 } from "node:buffer";
import type { IncomingMessage, ServerResponse } from "node:http";
import { LIMITS } from "#contracts/function";
import type { CallTarget } from "#db/functions";
import type { Tenant } from "#db/tenants";
import { CloisterError } from "#errors/catalogue";
import { type Authenticator, bearerToken, isCloisterToken } from "../auth/authenticator.ts";
import { decodeSegment, parseCallAddress } from "./address.ts";
import { Call, type CallRequest } from "./call.ts";
import type { CallContext } from "./call-context.ts";
import {
  type FunctionAddress,
  type FunctionResolver,
  parseFunctionAddress,
} from "./function-resolver.ts";
import { takeBody } from "./request-body.ts";
import { functionHeaders, hostOf, wantedPath, wantsTrace } from "./request-headers.ts";

export interface InvokerOptions {
  context: CallContext;
  authenticator: Authenticator;
  functions: FunctionResolver;
  /** The tenant whose public functions need no key; undefined when there is none. */
  publicTenant: () => Tenant | undefined | Promise<Tenant | undefined>;
  /** `http` or `https`, as clients see it. */
  scheme: string;
}

const HTTP_BODY = { wholeBytes: LIMITS.inlineBodyBytes, maxBytes: LIMITS.syncBodyBytes };
/** An event must be whole to be checked. */
const EVENT_BODY = { wholeBytes: LIMITS.syncBodyBytes, maxBytes: LIMITS.syncBodyBytes };
const EVENT_ADDRESS = /^\/v1\/functions\/([^/?]+)\/invocations(?:\?.*)?$/s;
const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json\s*(?:;|$)/i;

/** The segment of an event invocation's address, or undefined for any other address. */
export const eventSegment = (target: string): string | undefined => EVENT_ADDRESS.exec(target)?.[1];

/**
 * The two addresses that run functions, straight on Node's requests: what is known is taken from memory and nothing is
 * awaited that need not be.
 */
export class Invoker {
  readonly #options: InvokerOptions;

  constructor(options: InvokerOptions) {
    this.#options = options;
  }

  /** `ANY /f/{function}[@{version}]/{path}`: the request as it is. */
  http(request: IncomingMessage, response: ServerResponse, target: string): void {
    const call = new Call(this.#options.context, response);
    try {
      this.#refuseUpgrade(request);
      const address = parseCallAddress(target);
      const path = wantedPath(request.headers["cloister-isolation"]);
      if (wantsTrace(request.headers["cloister-trace"]))
        throw new CloisterError(
          "bad_request",
          "Cloister-Trace is for POST /v1/functions/{name}/invocations",
        );
      const url = `${this.#options.scheme}://${hostOf(request)}${address.path}`;
      const token = bearerToken(request.headers.authorization);
      const own = isCloisterToken(token);
      const proceed = (found: CallTarget): void => {
        call.found(found);
        const head = {
          method: request.method ?? "GET",
          url,
          path: address.path,
          headers: functionHeaders(request, !own),
        };
        this.#withBody(call, request, HTTP_BODY, {
          kind: "http",
          target: found,
          head,
          wantedPath: path,
        });
      };
      const found = own ? this.#ofCaller(token, address) : this.#ofAnyone(address);
      if (found instanceof Promise) found.then(proceed).catch((error) => call.fail(error));
      else proceed(found);
    } catch (error) {
      call.fail(error);
    }
  }

  /** `POST /v1/functions/{name}/invocations`: a JSON event. */
  event(request: IncomingMessage, response: ServerResponse, segment: string): void {
    const call = new Call(this.#options.context, response);
    try {
      const { headers } = request;
      this.#refuseUpgrade(request);
      const address = parseFunctionAddress(decodeSegment(segment));
      const path = wantedPath(headers["cloister-isolation"]);
      const trace = wantsTrace(headers["cloister-trace"]);
      const url = `${this.#options.scheme}://${hostOf(request)}/`;
      if (/(?:^|,)\s*respond-async\s*(?:,|;|$)/i.test(String(headers.prefer ?? "")))
        throw new CloisterError(
          "not_implemented",
          "Asynchronous invocations are not in this version",
        );
      if (headers["idempotency-key"] !== undefined)
        throw new CloisterError("not_implemented", "Idempotency-Key is not in this version");
      const type = headers["content-type"];
      if (type !== undefined && !JSON_TYPE.test(type))
        throw new CloisterError("unsupported_media_type", "An event is sent as application/json");
      const proceed = (found: CallTarget): void => {
        call.found(found);
        const head = { method: "POST", url, path: "/", headers: eventHeaders(request) };
        this.#withBody(call, request, EVENT_BODY, {
          kind: "event",
          target: found,
          head,
          wantedPath: path,
          trace,
        });
      };
      const found = this.#ofCaller(bearerToken(headers.authorization), address);
      if (found instanceof Promise) found.then(proceed).catch((error) => call.fail(error));
      else proceed(found);
    } catch (error) {
      call.fail(error);
    }
  }

  #ofCaller(token: string | undefined, address: FunctionAddress): CallTarget | Promise<CallTarget> {
    const { authenticator, functions } = this.#options;
    const caller = authenticator.authenticate(token, "invoke");
    return caller instanceof Promise
      ? caller.then(({ tenantId }) => functions.resolve(tenantId, address))
      : functions.resolve(caller.tenantId, address);
  }

  /** Without a key only public functions exist, and whether others do is not told. */
  #ofAnyone(address: FunctionAddress): CallTarget | Promise<CallTarget> {
    const tenant = this.#options.publicTenant();
    if (tenant instanceof Promise) return tenant.then((found) => this.#public(found, address));
    return this.#public(tenant, address);
  }

  #public(tenant: Tenant | undefined, address: FunctionAddress): CallTarget | Promise<CallTarget> {
    if (!tenant?.active) throw keyNeeded();
    const check = (target: CallTarget): CallTarget => {
      if (target.public) return target;
      throw keyNeeded();
    };
    const hide = (error: unknown): never => {
      if (error instanceof CloisterError && error.status === 404) throw keyNeeded();
      throw error;
    };
    let found: CallTarget | Promise<CallTarget>;
    try {
      found = this.#options.functions.resolve(tenant.id, address);
    } catch (error) {
      return hide(error);
    }
    return found instanceof Promise ? found.then(check, hide) : check(found);
  }

  #withBody(
    call: Call,
    request: IncomingMessage,
    limits: typeof HTTP_BODY,
    rest: CallRequest,
  ): void {
    if (call.finished) return;
    const { limits: quota } = rest.target;
    if (quota) this.#options.context.admissions.refuseKnown(quota);
    const body = takeBody(request, limits);
    if (body instanceof Promise)
      body
        .then((taken) => {
          if (rest.kind === "event" && "whole" in taken) checkEvent(taken.whole);
          call.enqueue(rest, taken);
        })
        .catch((error) => call.fail(error));
    else if (rest.kind === "event") call.enqueue(rest, { whole: Buffer.from("{}") });
    else call.enqueue(rest, body);
  }

  #refuseUpgrade(request: IncomingMessage): void {
    if (this.#options.context.draining()) throw new CloisterError("draining");
    // Other upgrades may be ignored (RFC 9110, 7.8); a websocket client would wait for one that never comes.
    if (request.headers.upgrade?.toLowerCase().includes("websocket"))
      throw new CloisterError("not_implemented", "WebSockets are not in this version");
  }
}

const keyNeeded = (): CloisterError =>
  new CloisterError(
    "unauthenticated",
    "The request has no valid key and no public function has this name",
  );

/** Throws `bad_request` unless the event is JSON in UTF-8. */
function checkEvent(event: Buffer): void {
  if (event.length === 0) throw new CloisterError("bad_request", "The body must be one JSON value");
  if (!isUtf8(event)) throw new CloisterError("bad_request", "The body is not UTF-8");
  try {
    JSON.parse(event.toString("utf8"));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new CloisterError("bad_request", `The body is not JSON: ${why.slice(0, 200)}`);
  }
}

/** Headers of an event, which may have been sent without a type. */
function eventHeaders(request: IncomingMessage): [string, string][] {
  const headers = functionHeaders(request, false);
  if (request.headers["content-type"] === undefined)
    headers.push(["content-type", "application/json"]);
  return headers;
}
