import { HEADER_NAME } from "./call.mjs";
import { delegate, replaceGlobal, replacement } from "./web-classes.mjs";

/** Values that `Headers` keeps as they are (fetch.spec.whatwg.org, "normalize"). */
const VALUE = /^(?:[!-~](?:[ -~]*[!-~])?)?$/;
/** Statuses of answers without a body ("null body status"). */
const NULL_BODY = new Set([204, 205, 304]);
/** Each is compared with all before it; who sends more is not in a hurry. */
const MOST_HEADERS = 64;
const TEXT = "text/plain;charset=UTF-8";
const JSON_TYPE = "application/json";

let Native;
let HeadersPrototype;

/**
 * What a PlainResponse of these arguments answers, `[status, headers]`; undefined for what is left to Node's own Response: bodies that are no texts, and
 * all that it refuses. `type` is the content-type of a body whose headers name none.
 */
function plainHead(init, type) {
  if (init === undefined) return [200, type === undefined ? [] : [["content-type", type]]];
  if (typeof init !== "object" || init === null) return undefined;
  const { headers: given, status = 200, statusText } = init;
  if (statusText !== undefined || !Number.isInteger(status) || status < 200 || status > 599)
    return undefined;
  if (type !== undefined && NULL_BODY.has(status)) return undefined;
  const headers = plainHeaders(given);
  if (headers === undefined) return undefined;
  if (type !== undefined && !headers.some(([name]) => name === "content-type"))
    headers.push(["content-type", type]);
  return [status, headers.sort(byName)];
}

const byName = ([a], [b]) => (a < b ? -1 : a > b ? 1 : 0);

/** As `[...new Headers(given)]` without its order; undefined for what only Headers can tell. */
function plainHeaders(given) {
  if (given === undefined) return [];
  if (typeof given !== "object" || given === null) return undefined;
  let pairs;
  const prototype = Object.getPrototypeOf(given);
  if (prototype === HeadersPrototype) return [...given];
  if (Array.isArray(given)) pairs = given;
  else if (prototype === Object.prototype && !(Symbol.iterator in given))
    pairs = Object.entries(given);
  else return undefined;
  if (pairs.length > MOST_HEADERS) return undefined;
  const headers = [];
  for (const pair of pairs) {
    if (!Array.isArray(pair) || pair.length !== 2) return undefined;
    const [name, value] = pair;
    if (typeof name !== "string" || typeof value !== "string") return undefined;
    if (!HEADER_NAME.test(name) || !VALUE.test(value) || name === "__proto__") return undefined;
    const lower = name.toLowerCase();
    // Two of a name become one, or stay two: Headers knows.
    if (headers.some(([other]) => other === lower)) return undefined;
    headers.push([lower, value]);
  }
  return headers;
}

/** Whether it is a Response that was made of a text, or of nothing. */
export let isPlain;

/** What is to be sent of such a one that nobody has looked into, which is read with that; undefined for every other. `body` is null without one. */
export let takePlain;

/**
 * A Response that was made of a text, or of nothing. Node's own makes a stream of each body, which has to be read again: most of what a small function's
 * call costs. It becomes one of Node's as soon as somebody asks for more than its status.
 */
class PlainResponse {
  #status;
  #headers;
  #body;
  #isTaken = false;
  #native;

  constructor(status, headers, body) {
    this.#status = status;
    this.#headers = headers;
    this.#body = body;
  }

  get status() {
    return this.#status;
  }

  get ok() {
    return this.#status <= 299;
  }

  get bodyUsed() {
    return this.#native?.bodyUsed ?? this.#isTaken;
  }

  static native(response) {
    return response.#made();
  }

  #made() {
    if (this.#native === undefined) {
      this.#native = new Native(this.#body, { status: this.#status, headers: this.#headers });
      // It has been sent, and its body is read.
      if (this.#isTaken) this.#native.body.getReader().cancel();
    }
    return this.#native;
  }

  static {
    isPlain = (value) => typeof value === "object" && value !== null && #status in value;
    takePlain = (response) => {
      if (!isPlain(response) || response.#native !== undefined || response.#isTaken)
        return undefined;
      response.#isTaken = response.#body !== null;
      return { status: response.#status, headers: response.#headers, body: response.#body };
    };
  }
}

/** `Response` as functions find it: Node's, but for those that can be plain. */
function responseClass(native) {
  Native = native;
  // Of Node's, whatever stands there by now.
  HeadersPrototype = Object.getPrototypeOf(new native().headers);
  delegate(PlainResponse, native);
  const Response = replacement(native, (given) => {
    const [body = null, init] = given;
    if (body !== null && typeof body !== "string") return undefined;
    const head = plainHead(init, body === null ? undefined : TEXT);
    return head && new PlainResponse(...head, body);
  });
  const json = {
    json(data, ...rest) {
      const head = plainHead(rest[0], JSON_TYPE);
      const text = head && JSON.stringify(data);
      return text === undefined ? native.json(data, ...rest) : new PlainResponse(...head, text);
    },
  };
  const like = Object.getOwnPropertyDescriptor(native, "json");
  Object.defineProperty(Response, "json", { ...like, value: json.json });
  return Response;
}

export const offerPlainResponses = () => replaceGlobal("Response", responseClass);
