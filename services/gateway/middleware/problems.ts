import { RequestError } from "@hono/node-server";
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ZodError } from "zod";
import { CloisterError } from "#errors/catalogue";
import { asCloisterError, problemHeaders, problemOf } from "../problem.ts";

/** An error as a response. */
export function problemResponse(error: CloisterError): Response {
  const headers = problemHeaders(error);
  // The rest of the body is read by nobody.
  if (error.code === "body_too_large") headers.push(["connection", "close"]);
  return new Response(JSON.stringify(problemOf(error)), { status: error.status, headers });
}

/** For requests that cannot even become a Request: an address or a host that is none. */
export const requestProblem = (error: unknown, onUnknown: (error: Error) => void): Response =>
  problemResponse(
    error instanceof RequestError
      ? new CloisterError("bad_request", `The request is not valid: ${error.message}`)
      : asCloisterError(error, onUnknown),
  );

/** For `app.onError`: whatever was thrown, as problem+json. */
export const onError =
  (onUnknown: (error: Error) => void) =>
  (error: Error, _c: Context): Response =>
    problemResponse(
      error instanceof HTTPException
        ? new CloisterError("bad_request", error.message || "The request is not valid")
        : knownError(error, onUnknown),
    );

/** Whatever was thrown, as an error of the catalogue. */
export const knownError = (error: Error, onUnknown: (error: Error) => void): CloisterError =>
  asCloisterError(databaseAway(error), onUnknown);

/** For `defaultHook`: a request that its schema refuses. */
export const onInvalid = (
  result: { success: true } | { success: false; target: string; error: ZodError },
): Response | undefined => {
  if (result.success) return undefined;
  const issues = result.error.issues
    .slice(0, 5)
    .map(({ path, message }) => `${result.target} ${path.map(String).join(".")}: ${message}`);
  return problemResponse(new CloisterError("bad_request", issues.join("; ").slice(0, 2000)));
};

/** SQLSTATE classes of a server that cannot serve now: connection, resources, shutdown (PostgreSQL, appendix A). */
const AWAY_STATE = /^(?:08|53|57)/;
const AWAY_ERRNO = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ENOENT",
  "EPIPE",
  "ETIMEDOUT",
  "EACCES",
]);
/** pg has no codes for its own bounds. */
const AWAY_MESSAGE =
  /^(?:timeout exceeded when trying to connect|Connection terminated|Query read timeout|Client has encountered a connection error|Cannot use a pool)/;

/** A database that is away is a 503 of its own; anything else stays what it is. */
function databaseAway(error: Error): Error {
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    const { code } = cause as { code?: unknown };
    const away =
      (typeof code === "string" && (AWAY_STATE.test(code) || AWAY_ERRNO.has(code))) ||
      AWAY_MESSAGE.test(cause.message);
    if (away) return new CloisterError("dependency_unavailable", "The database cannot be reached");
  }
  return error;
}
