import { BadResponse } from "./faults.mjs";
import { toJson } from "./handler-call.mjs";

const TEXT_KINDS = /^$|^text\/|json|xml|javascript|x-www-form-urlencoded/i;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const BASE64 = /^[A-Za-z0-9+/_-]*={0,2}\s*$/;

/** A request as a Lambda function-URL event, payload format 2.0. */
export function functionUrlEvent(call, body) {
  const question = call.path.indexOf("?");
  const path = question < 0 ? call.path : call.path.slice(0, question);
  const query = question < 0 ? "" : call.path.slice(question + 1);
  const headers = joined(call.headers, ", ");
  const host = headers.host ?? "";
  const now = new Date();
  const event = {
    version: "2.0",
    routeKey: "$default",
    rawPath: path,
    rawQueryString: query,
    headers,
    requestContext: {
      accountId: "anonymous",
      apiId: "cloister",
      domainName: host,
      domainPrefix: host.split(".")[0],
      http: {
        method: call.method,
        path,
        protocol: "HTTP/1.1",
        sourceIp: (headers["x-forwarded-for"] ?? "").split(",")[0].trim() || "127.0.0.1",
        userAgent: headers["user-agent"] ?? "",
      },
      requestId: call.id,
      routeKey: "$default",
      stage: "$default",
      time: logTime(now),
      timeEpoch: now.getTime(),
    },
    isBase64Encoded: false,
  };
  if (headers.cookie !== undefined)
    event.cookies = headers.cookie.split(";").map((cookie) => cookie.trim());
  if (query) event.queryStringParameters = joined(new URLSearchParams(query), ",");
  if (body.length > 0) {
    const bytes = Buffer.from(body.buffer, body.byteOffset, body.length);
    const text = TEXT_KINDS.test(headers["content-type"] ?? "") ? decoded(bytes) : undefined;
    event.isBase64Encoded = text === undefined;
    event.body = text ?? bytes.toString("base64");
  }
  return event;
}

/** Pairs as an object; those of one name joined. */
function joined(pairs, separator) {
  const map = new Map();
  for (const [name, value] of pairs)
    map.set(name, map.has(name) ? map.get(name) + separator + value : value);
  // fromEntries defines properties, so that a header named __proto__ is one like any other.
  return Object.fromEntries(map);
}

/** The text, or nothing if the bytes are no UTF-8. */
function decoded(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** As in `24/Nov/2026:15:20:00 +0000`. */
function logTime(date) {
  const two = (number) => String(number).padStart(2, "0");
  const clock = [date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()].map(two).join(":");
  return `${two(date.getUTCDate())}/${MONTHS[date.getUTCMonth()]}/${date.getUTCFullYear()}:${clock} +0000`;
}

/** Reads `{statusCode, headers, multiValueHeaders, cookies, body, isBase64Encoded}`. Throws BadResponse. */
export function functionUrlResponse(result) {
  const { statusCode, body, isBase64Encoded } = result;
  const status =
    typeof statusCode === "string" && /^\d+$/.test(statusCode) ? Number(statusCode) : statusCode;
  const headers = [];
  for (const [name, value] of entriesOf(result.headers, "headers"))
    if (value !== undefined && value !== null) headers.push([name.toLowerCase(), String(value)]);
  for (const [name, values] of entriesOf(result.multiValueHeaders, "multiValueHeaders"))
    for (const value of listOf(values, "multiValueHeaders"))
      headers.push([name.toLowerCase(), String(value)]);
  for (const cookie of listOf(result.cookies, "cookies"))
    headers.push(["set-cookie", String(cookie)]);
  const empty = body === undefined || body === null;
  if (!empty && !headers.some(([name]) => name === "content-type"))
    headers.push(["content-type", "application/json"]);
  return { status, headers, body: empty ? new Uint8Array() : bodyBytes(body, isBase64Encoded) };
}

function bodyBytes(body, isBase64) {
  if (isBase64) {
    if (typeof body !== "string" || !BASE64.test(body))
      throw new BadResponse("The answer's body is not the base64 it says it is.");
    return Buffer.from(body, "base64");
  }
  if (typeof body === "string") return Buffer.from(body);
  if (body instanceof Uint8Array) return body;
  return toJson(body);
}

function entriesOf(value, name) {
  if (value === undefined || value === null) return [];
  if (typeof value === "object" && !Array.isArray(value)) return Object.entries(value);
  throw new BadResponse(`The answer's ${name} are no object. Use {"name": "value"}.`);
}

function listOf(value, name) {
  if (value === undefined || value === null) return [];
  if (Array.isArray(value)) return value;
  throw new BadResponse(`The answer's ${name} are no list. Use ["value"].`);
}
