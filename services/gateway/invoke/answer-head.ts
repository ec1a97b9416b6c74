import { pathSchema, startKindSchema } from "#contracts/function";
import type { Phases, ReplyMeta } from "#contracts/invocation";
import { endsHere, namedByConnection } from "./request-headers.ts";

/** A function's answer head, as a worker passes it on. */
export interface AnswerHead {
  status: number;
  headers: [string, string][];
  meta: ReplyMeta;
}

const PHASES = [
  "queue_ms",
  "place_ms",
  "acquire_ms",
  "create_ms",
  "runtime_ms",
  "reset_ms",
  "restore_ms",
  "renew_ms",
  "assign_ms",
  "init_ms",
  "handler_ms",
  "reply_ms",
] as const satisfies (keyof Phases)[];

const PATHS: ReadonlySet<unknown> = new Set(pathSchema.options);
const STARTS: ReadonlySet<unknown> = new Set(startKindSchema.options);

/** Checks a HEAD frame's object; undefined when it is no answer head. */
export function answerHead(raw: Record<string, unknown>): AnswerHead | undefined {
  const { status, headers, meta } = raw;
  if (typeof status !== "number" || !Number.isInteger(status) || status < 200 || status > 599)
    return undefined;
  if (!Array.isArray(headers) || typeof meta !== "object" || meta === null) return undefined;
  for (const pair of headers as unknown[]) {
    if (!Array.isArray(pair) || pair.length !== 2) return undefined;
    if (typeof pair[0] !== "string" || typeof pair[1] !== "string") return undefined;
  }
  const { path, start, version, phases } = meta as Record<string, unknown>;
  if (!PATHS.has(path) || !STARTS.has(start) || !Number.isSafeInteger(version)) return undefined;
  if (typeof phases !== "object" || phases === null) return undefined;
  return { status, headers: headers as [string, string][], meta: meta as ReplyMeta };
}

/** `queue;dur=0.2, …, total;dur=1.9` (W3C Server Timing), ms. */
export function serverTiming(phases: Phases, totalMs: number): string {
  let text = "";
  for (const name of PHASES) {
    const ms: unknown = phases[name];
    if (typeof ms === "number") text += `${name.slice(0, -3)};dur=${ms}, `;
  }
  return `${text}total;dur=${Math.round(totalMs * 1000) / 1000}`;
}

/** Content-Length is digits alone (RFC 9110, 8.6); anything else would let the body and its length disagree. */
const LENGTH = /^\d{1,15}$/;

export interface ClientHeaders {
  /** Names and values in turn, as `writeHead` takes them. */
  flat: string[];
  /** What the function says its body will have, bytes. */
  declaredBytes: number | undefined;
}

/** What the client gets of a function's headers: those of the connection and Cloister's own end here, repeated ones stay. */
export function clientHeaders(head: AnswerHead): ClientHeaders {
  const flat: string[] = [];
  let declaredBytes: number | undefined;
  let named: ReadonlySet<string> | undefined;
  for (const [name, value] of head.headers)
    if (name.toLowerCase() === "connection") named = namedByConnection(value);
  for (const [given, value] of head.headers) {
    const name = given.toLowerCase();
    if (endsHere(name) || named?.has(name)) continue;
    if (name === "content-length") {
      if (declaredBytes === undefined && LENGTH.test(value)) declaredBytes = Number(value);
      continue;
    }
    flat.push(name, value);
  }
  return { flat, declaredBytes };
}
