import { sleep } from "k6";
import { randomBytes, sha256 } from "k6/crypto";
import http, { type RefinedResponse } from "k6/http";
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

/** One call and what became of it: what `./cloister load` reads, in this order. */
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

const bodies: Record<number, { bytes: ArrayBuffer; digest: string }> = {};

/** The same bytes for the same size, different for each caller. */
function bodyOf(size: number): { bytes: ArrayBuffer; digest: string } {
  let body = bodies[size];
  if (!body) {
    const bytes = randomBytes(size);
    body = { bytes, digest: sha256(bytes, "hex") };
    bodies[size] = body;
  }
  return body;
}

const plainly = http.expectedStatuses(200);
const perhapsRefused = http.expectedStatuses(200, 429);

/** Sends a request and records what became of it. */
export function call(stream: string, request: LoadRequest, to: Deployment): Called {
  const { function: name, isolation, answer, tag = null } = request;
  const body = request.bodyBytes === undefined ? undefined : bodyOf(request.bodyBytes);
  const headers: Record<string, string> = { authorization: `Bearer ${to.keys[name]}` };
  if (isolation !== undefined) headers["cloister-isolation"] = isolation;
  if (body) headers["content-type"] = "application/octet-stream";
  const sentAt = Date.now();
  const response: Answer = http.request(
    body ? "POST" : "GET",
    `${to.url}/f/${to.prefix}${name}${request.path}`,
    body?.bytes ?? null,
    {
      headers,
      redirects: 0,
      timeout: `${TIMEOUT_S}s`,
      responseType: answer === undefined ? "text" : "binary",
      responseCallback: request.mayBeRefused ? perhapsRefused : plainly,
      // The path's query differs between calls of one kind.
      tags: { name },
    },
  );
  const { status, timings } = response;
  const path = known(PATHS, response.headers["Cloister-Isolation"]);
  const start = known(STARTS, response.headers["Cloister-Start"]);
  const reason = wrongness(request, {
    ...{ status, path, error: response.error, bytes: bytesOf(response.body) },
    problem: () => textOf(response.body),
    mayComeAgain: response.headers["Retry-After"] !== undefined,
    digest: () => sha256(response.body as ArrayBuffer, "hex"),
    sentDigest: body?.digest,
  });
  const outcome: Outcome = reason !== null ? "failed" : status === 200 ? "ok" : "refused";
  const called: Called = {
    ...{ target: to.label, stream, tag, function: name, outcome, reason },
    lost: status === 0 && isLost(response.error_code, response.error),
    ...{ path, start },
    firstByteMs: status === 0 ? null : timings.blocked + timings.sending + timings.waiting,
    totalMs: status === 0 ? Date.now() - sentAt : timings.blocked + timings.duration,
  };
  record(called);
  if (called.lost) sleep(BACK_OFF_S);
  return called;
}

const known = (words: readonly string[], word: string | undefined): string | null =>
  word !== undefined && words.includes(word) ? word : null;

function record({ tag, outcome, path, start, firstByteMs: first, totalMs, ...of }: Called): void {
  const { target, stream } = of;
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
