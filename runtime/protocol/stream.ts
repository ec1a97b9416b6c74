import { ReceiveWindow, SendWindow } from "./flow.ts";
import { FRAME, jsonObject, MAX_DATA_BYTES, ProtocolError } from "./frames.ts";

/** What a stream needs of the link it belongs to. */
export interface StreamLink {
  /** Sends a frame of `stream` if that is still open. */
  send(type: number, stream: number, payload?: Uint8Array): void;
  sendJson(type: number, stream: number, value: object): void;
  sendWindow(stream: number, creditBytes: number): void;
  /** The stream is closed; frames of it that still come are dropped. */
  forget(stream: number): void;
  /** DATA should wait: the connection holds much that the peer has not read. */
  readonly congested: boolean;
}

/** Log bytes a sound sandbox never exceeds in one invocation: 1 MiB, its note, and what was on the way. */
const MAX_LOG_BYTES = 1024 * 1024 + 131_072;
/** Bounds lines too: an empty one costs as much work as a long one. */
const MAX_LOG_FRAMES = 200_000;

/** What both ends of an invocation have in common: a body each way, each with its window. Which side opened the stream plays no part. */
abstract class InvocationStream {
  protected readonly link: StreamLink;
  readonly id: number;
  protected readonly sending = new SendWindow();
  protected readonly receiving = new ReceiveWindow();
  #open = true;

  constructor(link: StreamLink, id: number) {
    this.link = link;
    this.id = id;
  }

  get open(): boolean {
    return this.#open;
  }

  /** Bytes of body that may be sent now. When it is 0, `onCredit` tells when to look again. */
  get credit(): number {
    return this.link.congested ? 0 : this.sending.left;
  }

  /** Sends a piece of body of at most `credit` bytes, without copying it. Throws RangeError when it is more. */
  sendData(bytes: Uint8Array): void {
    if (!this.#open || bytes.length === 0) return;
    if (bytes.length > this.sending.left) throw new RangeError("More bytes than the window allows");
    this.sending.take(bytes.length);
    for (let at = 0; at < bytes.length; at += MAX_DATA_BYTES)
      this.link.send(FRAME.DATA, this.id, bytes.subarray(at, at + MAX_DATA_BYTES));
  }

  /** The reader has taken that many bytes of what came as body: they may be replaced. */
  consumed(bytes: number): void {
    const credit = this.receiving.consume(bytes);
    if (credit > 0 && this.#open) this.link.sendWindow(this.id, credit);
  }

  /** Called by the link: one frame of this stream. Throws ProtocolError when it may not come now. */
  abstract receive(type: number, payload: Buffer): void;
  /** Called by the link: the connection is gone. */
  abstract down(error: Error | undefined): void;
  /** Called by the link: the connection drained. */
  abstract drained(): void;

  /** No frame leaves from here on, and none that still comes is looked at. */
  protected close(): void {
    this.#open = false;
    this.link.forget(this.id);
  }
}

/** What the side that asks hears. Payloads are views; copy what is kept for long. After end, error or down nothing follows. */
export interface CallHandler {
  onHead(head: Record<string, unknown>): void;
  /** A piece of the answer; tell `consumed` when it is taken. */
  onData(bytes: Buffer): void;
  onEnd(trailer: Record<string, unknown>): void;
  /** The answer failed, before or after its head. */
  onError(error: Record<string, unknown>): void;
  /** The connection is gone before the answer was whole. */
  onDown(error: Error | undefined): void;
  /** More of the request body may be sent. */
  onCredit?(): void;
  /** Whole lines of the function's output; `fd` is 1 or 2. */
  onLog?(fd: 1 | 2, text: Buffer): void;
  /** The peer drops what more of the request body it gets. */
  onBodyUnwanted?(): void;
}

/** The asking end of an invocation: sends the request body, hears the answer. */
export class CallStream extends InvocationStream {
  readonly #handler: CallHandler;
  #headSeen = false;
  #bodyEnded = false;
  #cancelled = false;
  #logBytes = 0;
  #logFrames = 0;

  constructor(link: StreamLink, id: number, handler: CallHandler) {
    super(link, id);
    this.#handler = handler;
  }

  /** The request body is whole. */
  endBody(): void {
    if (this.#bodyEnded || !this.open) return;
    this.#bodyEnded = true;
    this.link.send(FRAME.END, this.id);
  }

  override sendData(bytes: Uint8Array): void {
    if (!this.#bodyEnded) super.sendData(bytes);
  }

  /** Nobody waits for the answer. What still comes of it is dropped, except how it ends. */
  cancel(): void {
    if (this.#cancelled || !this.open) return;
    this.#cancelled = true;
    this.#bodyEnded = true;
    this.link.send(FRAME.CANCEL, this.id);
  }

  override receive(type: number, payload: Buffer): void {
    switch (type) {
      case FRAME.HEAD:
        if (this.#headSeen) throw new ProtocolError("A second HEAD");
        this.#headSeen = true;
        if (!this.#cancelled) this.#handler.onHead(jsonObject(payload));
        return;
      case FRAME.DATA:
        if (!this.#headSeen) throw new ProtocolError("DATA before HEAD");
        this.receiving.accept(payload.length);
        if (!this.#cancelled) this.#handler.onData(payload);
        return;
      case FRAME.END: {
        if (!this.#headSeen) throw new ProtocolError("END before HEAD");
        const trailer = jsonObject(payload);
        this.close();
        this.#handler.onEnd(trailer);
        return;
      }
      case FRAME.ERROR: {
        const error = jsonObject(payload);
        this.close();
        this.#handler.onError(error);
        return;
      }
      case FRAME.LOG:
        this.#receiveLog(payload);
        return;
      case FRAME.WINDOW:
        this.sending.add(payload);
        if (!this.#bodyEnded) this.#handler.onCredit?.();
        return;
      case FRAME.CANCEL:
        this.#bodyEnded = true;
        this.#handler.onBodyUnwanted?.();
        return;
      default:
        throw new ProtocolError(`Frame type ${type} is no part of an answer`);
    }
  }

  override down(error: Error | undefined): void {
    this.close();
    this.#handler.onDown(error);
  }

  override drained(): void {
    if (!this.#bodyEnded && this.sending.left > 0) this.#handler.onCredit?.();
  }

  #receiveLog(payload: Buffer): void {
    const fd = payload[0];
    if (fd !== 1 && fd !== 2) throw new ProtocolError("LOG of neither stdout nor stderr");
    this.#logBytes += payload.length;
    if (this.#logBytes > MAX_LOG_BYTES || ++this.#logFrames > MAX_LOG_FRAMES)
      throw new ProtocolError("More than 1 MiB of LOG");
    if (!this.#cancelled) this.#handler.onLog?.(fd, payload.subarray(1));
  }
}

/** What the side that answers hears. */
export interface AnswerHandler {
  /** A piece of the request body; tell `consumed` when it is taken. */
  onData(bytes: Buffer): void;
  /** The request body is whole. */
  onEnd(): void;
  /** Nobody waits any more. The stream stays open until `end` or `error` is called. */
  onCancel(): void;
  /** The connection is gone before the answer was whole. */
  onDown(error: Error | undefined): void;
  /** More of the answer may be sent. */
  onCredit?(): void;
}

/** The answering end of an invocation: hears the request body, sends the answer. */
export class AnswerStream extends InvocationStream {
  readonly #handler: AnswerHandler;
  #bodyEnded = false;
  #cancelled = false;

  constructor(link: StreamLink, id: number, handler: AnswerHandler) {
    super(link, id);
    this.#handler = handler;
  }

  /** Throws ProtocolError when the head fits no frame. */
  head(head: object): void {
    this.link.sendJson(FRAME.HEAD, this.id, head);
  }

  /** Whole lines of output. Cut into frames; keeping to 1 MiB an invocation is the sender's duty. */
  log(fd: 1 | 2, text: Uint8Array): void {
    for (let at = 0; at < text.length; at += MAX_DATA_BYTES - 1) {
      const piece = text.subarray(at, at + MAX_DATA_BYTES - 1);
      const payload = Buffer.allocUnsafe(piece.length + 1);
      payload[0] = fd;
      payload.set(piece, 1);
      this.link.send(FRAME.LOG, this.id, payload);
    }
  }

  /** The answer is whole; the stream is closed. */
  end(trailer: object = {}): void {
    this.link.sendJson(FRAME.END, this.id, trailer);
    this.close();
  }

  /** The answer failed, before or after its head; the stream is closed. */
  error(error: { code: string; message: string; type?: string; stack?: string }): void {
    this.link.sendJson(FRAME.ERROR, this.id, error);
    this.close();
  }

  /** Reply link only: tells the asking side to send no more of the request body. */
  refuseBody(): void {
    if (!this.#bodyEnded && this.open) this.link.send(FRAME.CANCEL, this.id);
  }

  override receive(type: number, payload: Buffer): void {
    switch (type) {
      case FRAME.DATA:
        if (this.#bodyEnded) throw new ProtocolError("DATA after END");
        this.receiving.accept(payload.length);
        if (!this.#cancelled) this.#handler.onData(payload);
        return;
      case FRAME.END:
        if (this.#bodyEnded) throw new ProtocolError("A second END");
        this.#bodyEnded = true;
        if (!this.#cancelled) this.#handler.onEnd();
        return;
      case FRAME.CANCEL:
        if (this.#cancelled) return;
        this.#cancelled = true;
        this.#handler.onCancel();
        return;
      case FRAME.WINDOW:
        this.sending.add(payload);
        this.#handler.onCredit?.();
        return;
      default:
        throw new ProtocolError(`Frame type ${type} is no part of a request`);
    }
  }

  override down(error: Error | undefined): void {
    this.close();
    this.#handler.onDown(error);
  }

  override drained(): void {
    if (this.sending.left > 0) this.#handler.onCredit?.();
  }
}

export type { InvocationStream };
