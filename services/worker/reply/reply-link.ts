import type { Socket } from "node:net";
import { MAX_DATA_BYTES, ProtocolError, ReceiveWindow, SendWindow } from "../sandbox/flow.ts";
import { FRAME, type FrameReceiver, FrameSocket, jsonObject } from "../sandbox/frame-socket.ts";

/** What one invocation hears from the gateway that holds its caller. Payloads are valid until the call returns. */
export interface CallerHandler {
  /** A piece of the request body. */
  requestData(bytes: Buffer): void;
  /** The request body is whole. */
  requestEnd(): void;
  /** More of the answer may be sent. */
  answerCredit(): void;
  /** Nobody waits for the answer any more: the caller left, or the gateway is gone (`lost`). */
  callerGone(lost: boolean): void;
}

const HELLO_TIMEOUT_MS = 5000;
/** A lazy announcement waits this long for an answer to travel with, ms. */
const LAZY_MS = 3;
const MAX_STREAM = 0xffff_ffff;

/** One invocation on a link; the worker plays the sandbox's side of the protocol. */
export class ReplyStream {
  readonly #link: ReplyLink;
  /** Given when it is announced, because numbers must reach the gateway in their order. */
  #id = 0;
  readonly handler: CallerHandler;
  readonly #sending = new SendWindow();
  readonly #receiving = new ReceiveWindow();
  /** The invocation, until it is announced. */
  #unannounced: string | undefined;

  constructor(link: ReplyLink, invocation: string, handler: CallerHandler) {
    this.#link = link;
    this.#unannounced = invocation;
    this.handler = handler;
  }

  /** Tells the gateway that this worker has the invocation. Everything sent later implies it. */
  announce(): void {
    if (this.#unannounced === undefined) return;
    const invocation = this.#unannounced;
    this.#unannounced = undefined;
    this.#id = this.#link.number(this);
    this.#link.sendJson(FRAME.INVOKE, this.#id, { invocation });
  }

  /** Bytes of the answer that may be sent now. */
  get credit(): number {
    return this.#sending.left;
  }

  /** Throws ProtocolError when the head fits no frame. */
  head(head: object): void {
    this.announce();
    this.#link.sendJson(FRAME.HEAD, this.#id, head);
  }

  /** At most `credit` bytes. */
  sendData(bytes: Buffer): void {
    this.#sending.take(bytes.length);
    for (let at = 0; at < bytes.length; at += MAX_DATA_BYTES)
      this.#link.send(FRAME.DATA, this.#id, bytes.subarray(at, at + MAX_DATA_BYTES));
  }

  /** The answer is whole; the stream is closed. */
  end(trailer: object): void {
    this.#link.sendJson(FRAME.END, this.#id, trailer);
    this.#link.forget(this.#id);
  }

  /** The answer failed, before or after its head; the stream is closed. */
  error(error: {
    code: string;
    message: string;
    type?: string;
    stack?: string;
    remedy?: string;
  }): void {
    this.announce();
    this.#link.sendJson(FRAME.ERROR, this.#id, error);
    this.#link.forget(this.#id);
  }

  /** That much of the request body was taken. */
  consumed(bytes: number): void {
    const credit = this.#receiving.consume(bytes);
    if (credit > 0) this.#link.sendWindow(this.#id, credit);
  }

  receiveData(bytes: Buffer): void {
    this.#receiving.accept(bytes.length);
    this.handler.requestData(bytes);
  }

  receiveCredit(payload: Buffer): void {
    this.#sending.add(payload);
    this.handler.answerCredit();
  }
}

export interface ReplyLinkOptions {
  idleMs: number;
  closed: (error: Error | undefined) => void;
  beforeSend?: () => void;
}

/** The worker's end of its connection to one gateway. */
export class ReplyLink implements FrameReceiver {
  readonly #frames: FrameSocket;
  readonly #options: ReplyLinkOptions;
  readonly #streams = new Map<number, ReplyStream>();
  readonly #unannounced = new Set<ReplyStream>();
  #next = 2;
  #hello: PromiseWithResolvers<void> | undefined;
  #idleTimer: NodeJS.Timeout | undefined;
  #usedAtMs = performance.now();
  #closed = false;

  constructor(socket: Socket, options: ReplyLinkOptions) {
    this.#options = options;
    this.#frames = new FrameSocket(socket, this, "turn", options.beforeSend);
    this.#armIdle(options.idleMs);
  }

  get alive(): boolean {
    return !this.#closed && this.#frames.open;
  }

  /** Proves who we are; rejects when the gateway does not take us. */
  async hello(nodeId: string, secret: string): Promise<void> {
    this.#hello = Promise.withResolvers<void>();
    const timer = setTimeout(
      () =>
        this.#frames.destroy(
          new Error(`The gateway did not answer hello in ${HELLO_TIMEOUT_MS} ms`),
        ),
      HELLO_TIMEOUT_MS,
    );
    this.#frames.sendJson(FRAME.REQUEST, 1, {
      op: "hello",
      worker: nodeId,
      token: secret,
      version: 1,
    });
    try {
      await this.#hello.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * A stream for an invocation; its caller's side goes to `handler`. The announcement leaves after 3 ms at the latest: an answer
   * that is quicker takes it along and saves both sides a wake-up.
   */
  open(invocation: string, handler: CallerHandler): ReplyStream {
    const stream = new ReplyStream(this, invocation, handler);
    this.#usedAtMs = performance.now();
    if (this.#unannounced.size === 0) setTimeout(() => this.#announceAll(), LAZY_MS);
    this.#unannounced.add(stream);
    return stream;
  }

  /** The number of a stream that is about to be announced; 0, whose frames go nowhere, once the link is closed. */
  number(stream: ReplyStream): number {
    this.#unannounced.delete(stream);
    if (this.#closed) return 0;
    const id = this.#next++;
    // Stream numbers are never used again: before they run out, another connection takes over.
    if (id === MAX_STREAM) this.#options.closed(undefined);
    this.#streams.set(id, stream);
    return id;
  }

  #announceAll(): void {
    for (const stream of [...this.#unannounced]) stream.announce();
  }

  send(type: number, stream: number, payload: Buffer): void {
    if (this.#streams.has(stream)) this.#frames.send(type, stream, payload);
  }

  sendJson(type: number, stream: number, value: object): void {
    if (this.#streams.has(stream)) this.#frames.sendJson(type, stream, value);
  }

  sendWindow(stream: number, credit: number): void {
    if (this.#streams.has(stream)) this.#frames.sendWindow(stream, credit);
  }

  forget(stream: number): void {
    this.#streams.delete(stream);
  }

  close(): void {
    this.#frames.end();
  }

  frame(type: number, id: number, payload: Buffer): void {
    if (type === FRAME.REPLY) {
      const reply = jsonObject(payload);
      if (reply.ok === true) this.#hello?.resolve();
      else
        this.#frames.destroy(
          new Error("The gateway refused this worker; is CLOISTER_LINK_SECRET the same?"),
        );
      return;
    }
    const stream = this.#streams.get(id);
    if (!stream) {
      // Crossed our END or ERROR, unless we never opened it.
      if (id !== 0 && id < this.#next) return;
      throw new ProtocolError("A gateway sent a frame for a stream that is not open");
    }
    switch (type) {
      case FRAME.DATA:
        stream.receiveData(payload);
        return;
      case FRAME.END:
        stream.handler.requestEnd();
        return;
      case FRAME.WINDOW:
        stream.receiveCredit(payload);
        return;
      case FRAME.CANCEL:
        // Answered at once, so that the gateway too can forget the stream.
        stream.error({ code: "invocation_cancelled", message: "The caller went away" });
        stream.handler.callerGone(false);
        return;
      default:
        throw new ProtocolError(`Frame type ${type} does not come from a gateway`);
    }
  }

  closed(error: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#idleTimer);
    this.#hello?.reject(error ?? new Error("The gateway closed the reply link"));
    this.#hello?.promise.catch(() => {});
    const open = [...this.#streams.values(), ...this.#unannounced];
    this.#streams.clear();
    this.#unannounced.clear();
    this.#options.closed(error);
    for (const stream of open) stream.handler.callerGone(true);
  }

  #armIdle(inMs: number): void {
    this.#idleTimer = setTimeout(() => {
      const idleMs = performance.now() - this.#usedAtMs;
      if (this.#streams.size + this.#unannounced.size === 0 && idleMs >= this.#options.idleMs) {
        this.#options.closed(undefined);
        this.#frames.end();
      } else this.#armIdle(Math.max(1000, this.#options.idleMs - idleMs));
    }, inMs);
    this.#idleTimer.unref();
  }
}
