import { CloisterError } from "#errors/catalogue";
import { type FunctionAddress, parseFunctionAddress } from "./function-resolver.ts";

export interface CallAddress extends FunctionAddress {
  /** What the function sees: path and query, starting with a slash. */
  path: string;
}

const CALL = /^\/f\/([^/?]+)([^?]*)(\?.*)?$/s;
const DOT_SEGMENT = /(?:^|[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\]|%2f|%5c|$)/i;
const BAD_ESCAPE = /%(?![0-9a-f]{2})/i;
/** RFC 3986: what a path and query may hold; bytes beyond ASCII come through node as Latin-1 and are refused. */
const TARGET = /^[\x21\x22\x24-\x7e]*$/;

/**
 * Reads a request target that starts with `/f/`. Throws `bad_request` for one that is not sound: dot segments (also
 * escaped), broken escapes, bytes that may not stand in a target.
 */
export function parseCallAddress(target: string): CallAddress {
  if (!TARGET.test(target))
    throw new CloisterError("bad_request", "The address holds characters that must be escaped");
  const match = CALL.exec(target);
  if (!match) throw new CloisterError("not_found", "An address is /f/{function}/{path}");
  const [, segment = "", rest = "", query = ""] = match;
  if (BAD_ESCAPE.test(segment) || BAD_ESCAPE.test(rest) || BAD_ESCAPE.test(query))
    throw new CloisterError("bad_request", "The address holds a % that is no escape");
  if (DOT_SEGMENT.test(rest) || /%00/.test(rest))
    throw new CloisterError("bad_request", "The path may not hold . or .. segments or NUL");
  return { ...parseFunctionAddress(decodeSegment(segment)), path: `${rest || "/"}${query}` };
}

/** One path segment without its escapes; throws `bad_request` when they are no UTF-8. */
export function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new CloisterError("bad_request", "The address holds an escape that is no UTF-8");
  }
}
