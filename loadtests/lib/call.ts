import { sleep } from "k6";
import { randomBytes, sha256 } from "k6/crypto";
import http, { type RefinedParams, type RefinedResponse } from "k6/http";
import { Counter, Trend } from "k6/metrics";
import type { Deployment } from "./deployment.ts";
import { TIMEOUT_S } from "./executors.ts";
import type { LoadRequest } from "./plan.ts";
import { wrongness } from "./wrongness.ts";

/** Times of right answers, and all calls by what became of them; tagged with the answer's path and start kind. */
const calls = new Counter("cloister_calls");
const callMs = new Trend("cloister_call_ms", true);
const firstByteMs = new Trend("cloister_first_byte_ms", true);

const PATHS = ["container", "microvm"];
const STARTS = ["cold", "prepared", "restored", "reset", "warm"];
/** A client without a connection does not try again at once, s. */
const BACK_OFF_S = 0.1;

type Answer = RefinedResponse<"text" | "binary">;
type Outcome = "ok" | "refused" | "failed";

/** One call and what became of it. */
export interface Called {
  target: string;
  /** Or its step. */
  stream: string;
  tag: string | null;
  function: string;
  outcome: Outcome;
  /** Why it failed, in few words, so that the like are counted together. */
  reason: string | null;
  /** Nobody is there, or no longer. */
  lost: boolean;
  path: string | null;
  start: string | null;
  firstByteMs: number | null;
  /** From when a connection was asked for to the last byte. */
  totalMs: number;
}

interface Prepared {
  method: "GET" | "POST";
  url: string;
  bytes: ArrayBuffer | null;
  digest: string | undefined;
  params: RefinedParams<"text" | "binary">;
}

/** Of each caller: what does not change from call to call, by target and request. */
const prepared: Record<string, Map<LoadRequest, Prepared>> = {};

function preparedFor(request: LoadRequest, to: Deployment): Prepared {
  const { function: name, path, isolation, answer, bodyBytes, mayBeRefused } = request;
  const known = prepared[to.label]?.get(request);
  if (known) return known;
  const headers: Record<string, string> = { authorization: `Bearer ${to.keys[name]}` };
  if (isolation !== undefined) headers["cloister-isolation"] = isolation;
  if (bodyBytes !== undefined) headers["content-type"] = "application/octet-stream";
  const bytes = bodyBytes === undefined ? null : randomBytes(bodyBytes);
  const one: Prepared = {
    method: bytes ? "POST" : "GET",
    url: `${to.url}/f/${to.prefix}${name}${path}`,
    bytes,
    digest: bytes ? sha256(bytes, "hex") : undefined,
    params: {
      headers,
      redirects: 0,
      timeout: `${TIMEOUT_S}s`,
      responseType: answer === undefined ? "text" : "binary",
      responseCallback: http.expectedStatuses(200, ...(mayBeRefused ? [429] : [])),
      // The path's query differs between calls of one kind.
      tags: { name },
    },
  };
  const ofTarget = prepared[to.label] ?? new Map<LoadRequest, Prepared>();
  prepared[to.label] = ofTarget;
  ofTarget.set(request, one);
  return one;
}

/** Sends a request and tells what became of it. */
export function call(stream: string, request: LoadRequest, to: Deployment): Called {
  const { method, url, bytes, params, digest } = preparedFor(request, to);
  const sentAt = Date.now();
  const response: Answer = http.request(method, url, bytes, params);
  const { status, timings, headers, error } = response;
  const path = known(PATHS, headers["Cloister-Isolation"]);
  const reason = wrongness(request, {
    status,
    error,
    path,
    mayComeAgain: () => headers["Retry-After"] !== undefined,
    bytes: () => bytesOf(response.body),
    problem: () => textOf(response.body),
    digest: () => sha256(response.body as ArrayBuffer, "hex"),
    sentDigest: digest,
  });
  const lost = status === 0 && isLost(response.error_code, error);
  if (lost) sleep(BACK_OFF_S);
  return {
    target: to.label,
    stream,
    tag: request.tag ?? null,
    function: request.function,
    outcome: reason !== null ? "failed" : status === 200 ? "ok" : "refused",
    reason,
    lost,
    path,
    start: known(STARTS, headers["Cloister-Start"]),
    firstByteMs: status === 0 ? null : timings.blocked + timings.sending + timings.waiting,
    totalMs: status === 0 ? Date.now() - sentAt : timings.blocked + timings.duration,
  };
}

const known = (words: readonly string[], word: string | undefined): string | null =>
  word !== undefined && words.includes(word) ? word : null;

/** Adds a call to k6's metrics. */
export function record(called: Called): void {
  const { target, stream, tag, outcome, path, start, firstByteMs: first, totalMs } = called;
  const tags: Record<string, string> = { target, stream };
  if (path !== null) tags.path = path;
  if (start !== null) tags.start = start;
  if (tag !== null) tags.kind = tag;
  calls.add(1, { ...tags, outcome });
  if (outcome !== "ok") return;
  callMs.add(totalMs, tags);
  if (first !== null) firstByteMs.add(first, tags);
}

const bytesOf = (body: string | ArrayBuffer | null): number =>
  body instanceof ArrayBuffer ? body.byteLength : (body?.length ?? 0);

/** Problems are small and ASCII where it matters. */
function textOf(body: string | ArrayBuffer | null): string {
  if (!(body instanceof ArrayBuffer)) return body ?? "";
  return String.fromCharCode(...new Uint8Array(body.slice(0, 16_384)));
}

/** k6's codes 1200 to 1299 are of TCP; a connection that ends where an answer was due has none of its own. */
const isLost = (code: number, error: string): boolean =>
  (code >= 1200 && code < 1300) || /\bEOF\b|connection reset/.test(error);
