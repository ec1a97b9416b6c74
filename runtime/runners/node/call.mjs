import { BadResponse, cancelledFault, describeFault } from "./faults.mjs";
import { CallLog } from "./logs.mjs";
import {
  END,
  ERROR,
  HEAD,
  jsonFrame,
  MAX_DATA_BYTES,
  MAX_PAYLOAD_BYTES,
  ProtocolError,
  textFrame,
  WINDOW_BYTES,
} from "./wire.mjs";

/** Code that was told to stop is given this long; then the sandbox is of no more use, ms. */
const CANCEL_GRACE_MS = 500;
/** A field name (RFC 9110, 5.1). */
export const HEADER_NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what RFC 9110 5.5 forbids in a value
const BAD_VALUE = /[\0\r\n]|[^\x00-\xff]/;

/** One invocation: the state of its stream, both bodies and their windows. */
export class Call {
  startedMs = performance.now();
  /** Pieces of the request body nobody has taken. */
  pieces = [];
  bodyBytes = 0;
  bodyEnded = false;
  cancelled = false;
  closed = false;
  /** It is not to begin before those that came earlier have ended. */
  behind;
  /** Code of the function may have seen it. */
  begun = false;
  /** Called when a piece, the end or the cancellation of the request body arrives. */
  onBody;
  #wire;
  #forget;
  #receiveLeft = WINDOW_BYTES;
  #ungranted = 0;
  #sendLeft = WINDOW_BYTES;
  #headSent = false;
  #onCredit;
  #abort;
  #onCancel = [];

  /** `forget(call)` is told once the stream is closed. Throws ProtocolError when `head` is no INVOKE. */
  constructor(wire, stream, head, forget) {
    this.#wire = wire;
    this.#forget = forget;
    this.stream = stream;
    const { id, kind, deadlineMs } = head;
    if (typeof id !== "string" || typeof deadlineMs !== "number")
      throw new ProtocolError("an INVOKE lacks id or deadlineMs");
    this.id = id;
    this.kind = kind;
    this.deadlineMs = this.startedMs + deadlineMs;
    this.behind = head.behind === true;
    if (kind === "event") {
      // What a fetch handler sees of an event; a handler gets the event itself.
      this.method = "POST";
      this.url = "http://localhost/";
      this.path = "/";
      this.headers = [["content-type", "application/json"], ...traceOf(head.headers)];
    } else if (kind === "http") {
      this.method = head.method;
      this.url = head.url;
      this.path = head.path;
      this.headers = head.headers;
      if (![this.method, this.url, this.path].every((text) => typeof text === "string"))
        throw new ProtocolError("an INVOKE lacks method, url or path");
      if (!Array.isArray(this.headers) || !this.headers.every(isPair))
        throw new ProtocolError("the headers of an INVOKE are no list of pairs");
    } else throw new ProtocolError("an INVOKE of unknown kind");
    this.hasBody = head.hasBody === true || kind === "event";
    this.log = new CallLog(wire, stream);
  }

  /** Its time begins, that of one that waited behind others only now. */
  begin() {
    this.begun = true;
    if (!this.behind) return;
    const waitedMs = performance.now() - this.startedMs;
    this.startedMs += waitedMs;
    this.deadlineMs += waitedMs;
  }

  remainingMs() {
    return Math.max(0, Math.trunc(this.deadlineMs - performance.now()));
  }

  /** Aborts when the caller goes away. Made when it is first asked for: most functions never do. */
  get signal() {
    this.#abort ??= new AbortController();
    if (this.cancelled && !this.#abort.signal.aborted) this.#abort.abort();
    return this.#abort.signal;
  }

  // What the worker says.

  takeData(payload) {
    const size = payload.length;
    if (size < 1 || size > MAX_DATA_BYTES)
      throw new ProtocolError("a DATA frame of the wrong size");
    if (this.bodyEnded) throw new ProtocolError("DATA after END");
    this.#receiveLeft -= size;
    if (this.#receiveLeft < 0) throw new ProtocolError("more DATA than the window allows");
    this.bodyBytes += size;
    // A copy with memory of its own: user code may keep, change or transfer it.
    this.pieces.push(new Uint8Array(payload));
    this.onBody?.();
  }

  takeEnd() {
    if (this.bodyEnded) throw new ProtocolError("a second END");
    this.bodyEnded = true;
    this.onBody?.();
  }

  takeCredit(payload) {
    if (payload.length !== 4) throw new ProtocolError("a WINDOW frame of the wrong size");
    this.#sendLeft += payload.readUInt32LE(0);
    if (this.#sendLeft > WINDOW_BYTES) throw new ProtocolError("more credit than a window holds");
    this.#wake();
  }

  /** The caller has gone: user code is told by its signal, and the stream closes when it is done or the grace is over. */
  takeCancel() {
    if (this.cancelled) return;
    this.cancelled = true;
    this.onBody?.();
    this.#wake();
    for (const stop of this.#onCancel) stop();
    this.#abort?.abort();
    // It cannot be stopped from outside, so the worker is to hand this sandbox to nobody else.
    setTimeout(() => this.fail({ ...cancelledFault(), exiting: true }), CANCEL_GRACE_MS);
  }

  /** Runs `stop` if the caller goes away. */
  whenCancelled(stop) {
    if (this.cancelled) stop();
    else this.#onCancel.push(stop);
  }

  // What the function takes and gives.

  /** `bytes` of the request body were read. */
  consumed(bytes) {
    this.#ungranted += bytes;
    if (this.#ungranted < WINDOW_BYTES / 2 || this.bodyEnded || this.closed) return;
    this.#receiveLeft += this.#ungranted;
    this.#wire.sendWindow(this.stream, this.#ungranted);
    this.#ungranted = 0;
  }

  /** All pieces of the request body that are there, in one. */
  takeBody() {
    const pieces = this.pieces;
    this.pieces = [];
    if (pieces.length === 1) return pieces[0];
    const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    return whole;
  }

  /** Sends the answer's head. Throws BadResponse when it is not fit for HTTP. */
  sendHead(status, headers) {
    if (this.closed) return;
    if (!Number.isInteger(status) || status < 200 || status > 599)
      throw new BadResponse(
        `The answer's status is ${shown(status)}. Use a number from 200 to 599.`,
      );
    for (const [name, value] of headers) {
      if (!HEADER_NAME.test(name) || BAD_VALUE.test(value))
        throw new BadResponse(
          `The answer's header ${shown(name)} cannot be sent. Use a valid name and text without line breaks.`,
        );
    }
    const text = JSON.stringify({ status, headers });
    if (text.length > MAX_PAYLOAD_BYTES / 2 && Buffer.byteLength(text) > MAX_PAYLOAD_BYTES)
      throw new BadResponse("The answer's headers are longer than 256 KiB. Send less.");
    this.#headSent = true;
    this.#wire.send(textFrame(HEAD, this.stream, text));
  }

  /** Sends a piece of the answer's body as the window allows. False when nobody wants more; a promise only if it must wait. */
  sendBody(bytes) {
    if (this.cancelled || this.closed) return false;
    if (bytes.length === 0) return true;
    if (bytes.length > MAX_DATA_BYTES || bytes.length > this.#sendLeft)
      return this.#sendLong(bytes);
    this.#sendLeft -= bytes.length;
    this.#wire.sendData(this.stream, bytes);
    return true;
  }

  async #sendLong(bytes) {
    for (let at = 0; at < bytes.length; ) {
      if (this.cancelled || this.closed) return false;
      const size = Math.min(bytes.length - at, this.#sendLeft, MAX_DATA_BYTES);
      if (size > 0) {
        this.#sendLeft -= size;
        this.#wire.sendData(this.stream, bytes.subarray(at, at + size));
        at += size;
      } else
        await new Promise((resolve) => {
          this.#onCredit = resolve;
        });
    }
    return true;
  }

  /** The answer is whole. */
  end() {
    if (this.cancelled) this.fail(cancelledFault());
    if (this.closed) return;
    this.log.finish();
    this.#close();
    const handlerMs = Math.round((performance.now() - this.startedMs) * 1000) / 1000;
    this.#wire.send(textFrame(END, this.stream, `{"handlerMs":${handlerMs}}`));
  }

  /** Ends the stream with an ERROR payload; the first one counts. */
  fail(fault) {
    if (this.closed) return;
    this.log.finish();
    this.#close(fault.exiting);
    const last = this.cancelled ? { ...fault, ...cancelledFault() } : fault;
    this.#wire.send(jsonFrame(ERROR, this.stream, last));
  }

  /** Ends the stream with what user code threw. */
  failWith(thrown) {
    this.fail(describeFault(thrown, "function_error"));
  }

  get headSent() {
    return this.#headSent;
  }

  #close(exiting = false) {
    this.closed = true;
    this.pieces = [];
    this.#wake();
    this.#forget(this, exiting);
  }

  #wake() {
    const wake = this.#onCredit;
    this.#onCredit = undefined;
    wake?.();
  }
}

/** Of the request that brought an event, only its trace is told (W3C Trace Context). */
const traceOf = (headers) =>
  Array.isArray(headers)
    ? headers.filter(
        (pair) => isPair(pair) && (pair[0] === "traceparent" || pair[0] === "tracestate"),
      )
    : [];

const isPair = (pair) =>
  Array.isArray(pair) &&
  pair.length === 2 &&
  typeof pair[0] === "string" &&
  typeof pair[1] === "string";

/** A value inside a message. */
export function shown(value) {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 100));
  if (value === null || typeof value !== "object") return String(value).slice(0, 100);
  const name = Object.prototype.toString.call(value).slice(8, -1);
  return `${/^[AEIO]/.test(name) ? "an" : "a"} ${name}`;
}
