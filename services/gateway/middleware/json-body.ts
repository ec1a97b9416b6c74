import type { MiddlewareHandler } from "hono";
import { CloisterError } from "#errors/catalogue";
import { readTextBody } from "../publish/read-json-body.ts";

const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json\s*(?:;|$)/i;
/** What a route of the API takes as JSON is small; functions are published elsewhere. */
const MAX_BYTES = 64 * 1024;

/** Reads the JSON body with bounds before the route's schema sees it. */
export const jsonBody = (): MiddlewareHandler => async (c, next) => {
  if (!JSON_TYPE.test(c.req.header("content-type") ?? ""))
    throw new CloisterError("unsupported_media_type", "The body is to be application/json");
  const text = await readTextBody(
    c.req.raw.body,
    MAX_BYTES,
    `The body of this request is at most ${MAX_BYTES} bytes`,
  );
  // Where hono looks before it reads the request itself; it holds promises, whatever its type says.
  Object.assign(c.req.bodyCache, { text: Promise.resolve(text) });
  await next();
};
