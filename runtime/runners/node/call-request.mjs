import { delegate, replaceGlobal, replacement } from "./web-classes.mjs";

/** Methods that Request takes as they are (fetch.spec.whatwg.org, "normalize a method"). */
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]);

const NO_CREDENTIALS = /^https?:\/\/[^@\\/?#]*(?:[/?#]|$)/;
const NOTHING = new Uint8Array();

let Native;
let NativeHeaders;
/** `Request` as functions find it, unless they put their own there. */
let Offered;
let decoder;

/** A Request for `fetch` or `new Request`; everything else as it is. */
let plainOf;

/**
 * The Request of a call, which Node's own is made of when somebody needs it: few functions ask for more than method, URL, headers and whether the caller is
 * still there, or for its body as anything but text or JSON. Its body, if it has one, is whole.
 */
export class CallRequest {
  #call;
  #url;
  #headers;
  #body;
  #isRead = false;
  #native;

  /** Whether this can stand for a call's `new Request`: Node's own has to refuse others, or to stream their bodies. */
  static fits(Request, call) {
    return (
      Request === Offered &&
      METHODS.has(call.method) &&
      (call.bodyEnded || !call.hasBody) &&
      NO_CREDENTIALS.test(call.url)
    );
  }

  constructor(call) {
    this.#call = call;
    // The call lets go of it at its end, the function may read it later.
    if (call.bodyBytes > 0 && call.method !== "GET" && call.method !== "HEAD")
      this.#body = call.takeBody();
  }

  get method() {
    return this.#call.method;
  }

  get url() {
    this.#url ??= new URL(this.#call.url).href;
    return this.#url;
  }

  get headers() {
    this.#headers ??= new NativeHeaders(this.#call.headers);
    return this.#headers;
  }

  get signal() {
    return this.#call.signal;
  }

  get bodyUsed() {
    return this.#native?.bodyUsed ?? this.#isRead;
  }

  async text() {
    return this.#isWhole() ? this.#text() : this.#made().text();
  }

  async json() {
    return this.#isWhole() ? JSON.parse(this.#text()) : this.#made().json();
  }

  clone() {
    const copy = this.#made().clone();
    return this.#headers === undefined ? copy : new Native(copy, { headers: this.#headers });
  }

  static native(request) {
    return request.#made();
  }

  /** Whether its body is still as it came. */
  #isWhole() {
    return this.#native === undefined && !this.#isRead;
  }

  #text() {
    if (this.#body === undefined) return "";
    const body = this.#body;
    this.#body = NOTHING;
    this.#isRead = true;
    decoder ??= new TextDecoder();
    return decoder.decode(body);
  }

  #made() {
    if (this.#native === undefined) {
      const { method, signal } = this.#call;
      const init = { method, signal, headers: this.#headers ?? this.#call.headers };
      if (this.#body !== undefined) init.body = this.#body;
      this.#native = new Native(this.#call.url, init);
      this.#body = undefined;
      if (this.#isRead) this.#native.body.getReader().cancel();
    }
    return this.#native;
  }

  static {
    plainOf = (input) => {
      if (typeof input !== "object" || input === null || !(#call in input)) return input;
      const isNew = input.#native === undefined;
      const native = input.#made();
      // The function may have changed its headers since.
      return isNew || input.#headers === undefined
        ? native
        : new Native(native, { headers: input.#headers });
    };
  }
}

function requestClass(native) {
  Native = native;
  // Node's, whatever stands there by now.
  NativeHeaders = new native("http://localhost/").headers.constructor;
  delegate(CallRequest, native);
  const unwrap = (given) => {
    if (given.length > 0) given[0] = plainOf(given[0]);
  };
  Offered = replacement(native, () => undefined, unwrap);
  return Offered;
}

export const offerCallRequests = () => replaceGlobal("Request", requestClass);

/** Before anybody takes hold of Node's own `fetch`, which knows no request that stands in. Loads nothing. */
export const offerFetch = () =>
  replaceGlobal("fetch", (native) => {
    const stands = { fetch: (input, ...rest) => native(plainOf(input), ...rest) };
    return stands.fetch;
  });
