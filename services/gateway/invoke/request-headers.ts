import type { IncomingMessage } from "node:http";
import { type Path, pathSchema } from "#contracts/function";
import { CloisterError } from "#errors/catalogue";

/** RFC 9110, 7.6.1, and what concerns this connection only. */
const HOP_BY_HOP = new Set([
  "connection",
  "expect",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** Headers that end at the gateway, in both directions: those of the connection, and Cloister's own. */
export const endsHere = (name: string): boolean =>
  HOP_BY_HOP.has(name) || name.startsWith("cloister-");

/** Names that a Connection header adds to those that end here. */
export const namedByConnection = (value: string | undefined): ReadonlySet<string> | undefined =>
  value === undefined || value === "keep-alive" || value === "close"
    ? undefined
    : new Set(value.split(",").map((name) => name.trim().toLowerCase()));

/**
 * What the function gets, in order and with repetitions: names in lower case. `keepAuthorization` is for callers whose
 * Authorization is meant for the function; a Cloister key never reaches one.
 */
export function functionHeaders(
  request: IncomingMessage,
  keepAuthorization: boolean,
): [string, string][] {
  const { rawHeaders } = request;
  const named = namedByConnection(request.headers.connection);
  const headers: [string, string][] = [];
  let forwardedFor: string | undefined;
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] as string).toLowerCase();
    const value = rawHeaders[at + 1] as string;
    if (endsHere(name) || named?.has(name)) continue;
    if (name === "authorization" && !keepAuthorization) continue;
    if (name === "x-forwarded-for")
      forwardedFor = forwardedFor ? `${forwardedFor}, ${value}` : value;
    else headers.push([name, value]);
  }
  const peer = request.socket.remoteAddress;
  if (peer !== undefined)
    headers.push(["x-forwarded-for", forwardedFor ? `${forwardedFor}, ${peer}` : peer]);
  return headers;
}

const HOST = /^(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/;

/** The Host header, fit to stand in a URL. Throws `bad_request`. */
export function hostOf(request: IncomingMessage): string {
  const { host } = request.headers;
  if (host === undefined || host === "") return "localhost";
  if (!HOST.test(host)) throw new CloisterError("bad_request", "The Host header is not valid");
  return host;
}

/** Whether a caller asks for its system calls by `Cloister-Trace: 1`. Throws `bad_request` for any other word. */
export function wantsTrace(value: string | string[] | undefined): boolean {
  if (value === undefined) return false;
  if (value === "1") return true;
  throw new CloisterError("bad_request", "Cloister-Trace must be 1");
}

/** The path a caller asks for by `Cloister-Isolation`. Throws `bad_request` for any other word. */
export function wantedPath(value: string | string[] | undefined): Path | undefined {
  if (value === undefined) return undefined;
  const parsed = pathSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new CloisterError("bad_request", "Cloister-Isolation must be container or microvm");
}
