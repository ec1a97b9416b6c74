import type { ServerResponse } from "node:http";
import type { ClientHeaders } from "./answer-head.ts";

/** A client that takes longer than this for the last bytes of an answer has gone, ms. */
const LAST_BYTES_MS = 120_000;
/** A client may go on sending a body nobody reads this long after its answer, ms. */
const LINGER_MS = 5000;

export interface AnswerEvents {
  /** The client's side has taken so many bytes. */
  taken: (bytes: number) => void;
  /** The answer cannot be sent as the function gave it. */
  broken: (reason: string) => void;
}

/**
 * Writes one answer. A head waits until the end of the turn, so that an answer that arrives whole leaves in one write and
 * with its length.
 */
export class AnswerWriter {
  readonly #response: ServerResponse;
  readonly #events: AnswerEvents;
  #status = 0;
  #headers: ClientHeaders | undefined;
  #held: Buffer[] = [];
  #bytes = 0;
  #started = false;
  #ended = false;

  constructor(response: ServerResponse, events: AnswerEvents) {
    this.#response = response;
    this.#events = events;
  }

  /** Whether bytes have left, so that no other answer can be given. */
  get started(): boolean {
    return this.#started;
  }

  head(status: number, headers: ClientHeaders): void {
    this.#status = status;
    this.#headers = headers;
    process.nextTick(this.#flush);
  }

  data(bytes: Buffer): void {
    this.#bytes += bytes.length;
    const declared = this.#headers?.declaredBytes;
    if (declared !== undefined && this.#bytes > declared) {
      this.#events.broken("The function's body is longer than its Content-Length");
      return;
    }
    if (this.#started) this.#write(bytes);
    else this.#held.push(bytes);
  }

  end(): void {
    this.#ended = true;
    if (this.#started) this.#finish();
  }

  readonly #flush = (): void => {
    const headers = this.#headers;
    const response = this.#response;
    if (this.#started || !headers || response.destroyed || response.headersSent) return;
    const { flat, declaredBytes } = headers;
    const bodiless = this.#status === 204 || this.#status === 304;
    const noBody = bodiless || response.req.method === "HEAD";
    const lengthBytes = this.#ended && !noBody ? this.#bytes : declaredBytes;
    if (this.#ended && !noBody && declaredBytes !== undefined && declaredBytes !== this.#bytes) {
      this.#events.broken("The function's body is shorter than its Content-Length");
      return;
    }
    if (lengthBytes !== undefined && this.#status !== 204)
      flat.push("content-length", String(lengthBytes));
    try {
      response.writeHead(this.#status, flat);
    } catch (error) {
      this.#events.broken(error instanceof Error ? error.message : String(error));
      return;
    }
    this.#started = true;
    const held = this.#held;
    this.#held = [];
    if (this.#ended && held.length <= 1) {
      const [only] = held;
      response.end(only);
      if (only) this.#events.taken(only.length);
      lingerAfter(response);
      return;
    }
    if (held.length === 0) response.flushHeaders();
    for (const bytes of held) this.#write(bytes);
    if (this.#ended) this.#finish();
  };

  #write(bytes: Buffer): void {
    this.#response.write(bytes, () => this.#events.taken(bytes.length));
  }

  #finish(): void {
    const response = this.#response;
    const declared = this.#headers?.declaredBytes;
    const noBody = this.#status === 304 || response.req.method === "HEAD";
    if (declared !== undefined && declared !== this.#bytes && !noBody && this.#status !== 204) {
      // The client waits for bytes that will not come: the connection must not be used again.
      this.#events.broken("The function's body is shorter than its Content-Length");
      return;
    }
    response.end();
    if (response.writableLength > 0) {
      const timer = setTimeout(() => response.destroy(), LAST_BYTES_MS);
      timer.unref();
      response.once("close", () => clearTimeout(timer));
    }
    lingerAfter(response);
  }
}

/** Reads away what is left of a request after its answer was given, for a bounded time. */
export function lingerAfter(response: ServerResponse): void {
  const { req: request } = response;
  if (request.complete) return;
  request.resume();
  const timer = setTimeout(() => request.socket.destroy(), LINGER_MS);
  timer.unref();
  const over = (): void => clearTimeout(timer);
  request.once("end", over);
  request.once("close", over);
}
