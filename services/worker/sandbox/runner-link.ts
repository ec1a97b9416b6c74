import { ProtocolError, ReceiveWindow, SendWindow } from "./flow.ts";
import {
  answersIn,
  FRAME,
  type FrameReceiver,
  type FrameSocket,
  jsonObject,
} from "./frame-socket.ts";

/** What a caller of a runner hears of its invocation. Payloads are views that are valid until the call returns. */
export interface AnswerHandler {
  head(head: Record<string, unknown>): void;
  data(bytes: Buffer): void;
  /** The answer is whole. */
  end(trailer: Record<string, unknown>): void;
  /** The answer failed; nothing follows. */
  error(error: Record<string, unknown>): void;
  /** One or more whole lines of user output; `fd` is 1 or 2. */
  log(fd: 1 | 2, text: Buffer): void;
  /** More of the request body may be sent. */
  credit(): void;
  /** The runner is gone before the answer was whole. */
  down(): void;
  /**
   * A call that waited behind others has begun. Called again, for any, with a later `atMs` (of performance.now()), when its answer
   * comes together with others': each has its share of the time they took.
   */
  begun?(atMs: number): void;
  /** A call that waits behind others was asked back, which a runner hears when the function lets it. */
  recalled?(): void;
}

/** Log bytes of one invocation a sound runner never exceeds: 1 MiB, its note, and what was on the way. */
const MAX_LOG_BYTES = 1024 * 1024 + 131_072;
const MAX_LOG_FRAMES = 200_000;
/**
 * What a runner may send that no window bounds (output outside invocations, frames of closed streams): this much at once, refilled
 * at this rate. A runner beyond it is taken for hostile, because each such frame costs the worker time.
 */
const UNBOUND_BYTES = 8 * 1024 * 1024;
const UNBOUND_BYTES_PER_MS = 256;
/** Charged for a frame beside its payload. */
const FRAME_COST_BYTES = 512;
const EMPTY = Buffer.alloc(0);

/** One invocation on a runner's connection. */
export class RunnerStream {
  readonly #link: RunnerLink;
  readonly #id: number;
  readonly handler: AnswerHandler;
  readonly #sending = new SendWindow();
  readonly #receiving = new ReceiveWindow();
  #logBytes = 0;
  #logFrames = 0;
  headSeen = false;
  /** It waits in the runner for no other. */
  begun: boolean;
  /** It has been asked back. */
  recalled = false;
  #bodyEnded = false;

  constructor(link: RunnerLink, id: number, handler: AnswerHandler, begun: boolean) {
    this.#link = link;
    this.#id = id;
    this.handler = handler;
    this.begun = begun;
  }

  /** Bytes of request body that may be sent now. */
  get credit(): number {
    return this.#sending.left;
  }

  /** Sends a piece of the request body, at most `credit` bytes; larger pieces are cut into frames. */
  sendData(bytes: Buffer): void {
    if (!this.#link.has(this.#id)) return;
    this.#sending.take(bytes.length);
    this.#link.sendData(this.#id, bytes);
  }

  endBody(): void {
    if (this.#bodyEnded || !this.#link.has(this.#id)) return;
    this.#bodyEnded = true;
    this.#link.send(FRAME.END, this.#id);
  }

  cancel(): void {
    if (this.#link.has(this.#id)) this.#link.send(FRAME.CANCEL, this.#id);
  }

  /** The reader has taken that much of the answer. */
  consumed(bytes: number): void {
    const credit = this.#receiving.consume(bytes);
    if (credit > 0 && this.#link.has(this.#id)) this.#link.sendWindow(this.#id, credit);
  }

  receiveData(bytes: Buffer): void {
    if (!this.headSeen) throw new ProtocolError("DATA before HEAD");
    this.#receiving.accept(bytes.length);
    this.handler.data(bytes);
  }

  receiveCredit(payload: Buffer): void {
    this.#sending.add(payload);
    this.handler.credit();
  }

  receiveLog(fd: 1 | 2, text: Buffer): void {
    this.#logBytes += text.length;
    if (this.#logBytes > MAX_LOG_BYTES || ++this.#logFrames > MAX_LOG_FRAMES)
      throw new ProtocolError("More than 1 MiB of LOG");
    this.handler.log(fd, text);
  }
}

export interface RunnerLinkEvents {
  /** The runner has said READY. */
  ready(message: Record<string, unknown>): void;
  /** An answer is whole. */
  answered(): void;
  /** Output that belongs to no invocation. */
  strayLog(fd: 1 | 2, text: Buffer): void;
  /** The connection is gone. `error` when the runner broke the protocol. */
  down(error: Error | undefined): void;
}

/** The worker's end of a runner's descriptor 3. Nothing a runner sends can do more than end this connection. */
export class RunnerLink implements FrameReceiver {
  readonly #socket: FrameSocket;
  readonly #events: RunnerLinkEvents;
  readonly #streams = new Map<number, RunnerStream>();
  readonly ready: Promise<Record<string, unknown>>;
  readonly #ready = Promise.withResolvers<Record<string, unknown>>();
  #initDone: PromiseWithResolvers<Record<string, unknown>> | undefined;
  #nextStream = 1;
  #unboundLeft = UNBOUND_BYTES;
  #unboundAtMs = performance.now();
  #isReady = false;
  #isDown = false;
  #holds = false;
  /** Streams that wait in the runner behind others. */
  #waiting = 0;
  /** When the last call began that waited, or the first that follows. */
  #beganMs = 0;
  /** Answers that end in the read that is being heard, and the time of each, ms. */
  #together = 0;
  #eachMs = 0;

  constructor(socket: FrameSocket, events: RunnerLinkEvents) {
    this.#socket = socket;
    this.#events = events;
    this.ready = this.#ready.promise;
    this.ready.catch(() => {});
  }

  get streams(): number {
    return this.#streams.size;
  }

  /** Invocations that have begun. */
  get underWay(): number {
    return this.#streams.size - this.#waiting;
  }

  /** Whether the runner lets calls wait behind others; known once it has said READY. */
  get holds(): boolean {
    return this.#holds;
  }

  /** How many answers are still to end in the read that is being heard. */
  get together(): number {
    return this.#together;
  }

  /** The handler of the only invocation under way, when there is exactly one. */
  get soleHandler(): AnswerHandler | undefined {
    if (this.underWay !== 1) return undefined;
    return this.#streams.values().next().value?.handler;
  }

  has(stream: number): boolean {
    return this.#streams.has(stream);
  }

  /** Tells a restored runner what it is now; it says READY again. Resolves if it says INIT_DONE instead: its function cannot come back. */
  restored(message: object): Promise<Record<string, unknown>> {
    this.#initDone = Promise.withResolvers();
    this.#initDone.promise.catch(() => {});
    if (!this.#isDown) this.#socket.sendJson(FRAME.RESTORED, 0, message);
    return this.#initDone.promise;
  }

  /** Sends INIT; resolves with INIT_DONE's payload, rejects when the runner goes away first. */
  init(message: object): Promise<Record<string, unknown>> {
    this.#initDone = Promise.withResolvers();
    if (this.#isDown) this.#initDone.reject(new Error("The runner is gone"));
    else this.#socket.sendJson(FRAME.INIT, 0, message);
    return this.#initDone.promise;
  }

  /**
   * Opens a stream with an INVOKE frame; `behind`: it is to begin when those before it have ended. Throws ProtocolError when the head fits
   * no frame.
   */
  invoke(head: object, handler: AnswerHandler, behind = false): RunnerStream {
    const id = this.#nextStream++;
    const waits = behind && this.#streams.size > 0;
    const stream = new RunnerStream(this, id, handler, !waits);
    this.#socket.sendJson(FRAME.INVOKE, id, behind ? { ...head, behind } : head);
    if (this.#streams.size === 0) this.#beganMs = performance.now();
    this.#streams.set(id, stream);
    if (waits) this.#waiting++;
    else if (behind) handler.begun?.(this.#beganMs);
    return stream;
  }

  /** Asks for those back that wait behind others: they end by ERROR with code `function_recalled`, unless they have begun meanwhile. */
  recall(): void {
    if (this.#waiting === 0) return;
    for (const [id, stream] of this.#streams) {
      if (stream.begun || stream.recalled) continue;
      stream.recalled = true;
      this.send(FRAME.RECALL, id);
      stream.handler.recalled?.();
    }
  }

  reading(bytes: Buffer): void {
    this.#together = 0;
    if (this.#waiting === 0) return;
    const answers = answersIn(bytes, (stream) => this.#streams.has(stream));
    // A runner that ends one stream twice has not answered more calls for it.
    this.#together = Math.min(answers, this.#streams.size);
    if (this.#together < 2) return;
    const now = performance.now();
    this.#eachMs = (now - this.#beganMs) / this.#together;
    const [first] = this.#streams.values();
    if (first?.begun) first.handler.begun?.(now - this.#eachMs);
  }

  /** Closes one: `tell` tells its handler. If it was the last that had begun, the next has. */
  #close(id: number, stream: RunnerStream, tell: () => void): void {
    this.#streams.delete(id);
    if (!stream.begun) this.#waiting--;
    tell();
    if (this.#together > 0) this.#together--;
    if (this.#waiting === 0 || this.underWay > 0) return;
    const [next] = this.#streams.values();
    if (!next) return;
    next.begun = true;
    this.#waiting--;
    this.#beganMs = performance.now();
    // One whose answer is in the same read has begun before that.
    next.handler.begun?.(this.#together > 0 ? this.#beganMs - this.#eachMs : this.#beganMs);
  }

  send(type: number, stream: number, payload: Buffer = EMPTY): void {
    this.#socket.send(type, stream, payload);
  }

  sendData(stream: number, bytes: Buffer): void {
    if (bytes.length <= 65_536) this.#socket.send(FRAME.DATA, stream, bytes);
    else
      for (let at = 0; at < bytes.length; at += 65_536)
        this.#socket.send(FRAME.DATA, stream, bytes.subarray(at, at + 65_536));
  }

  sendWindow(stream: number, credit: number): void {
    this.#socket.sendWindow(stream, credit);
  }

  destroy(error?: Error): void {
    this.#socket.destroy(error);
  }

  /** Every open stream is answered so. */
  failAll(error: Record<string, unknown>): void {
    const open = [...this.#streams.values()];
    this.#streams.clear();
    this.#waiting = 0;
    for (const stream of open) stream.handler.error(error);
  }

  frame(type: number, stream: number, payload: Buffer): void {
    if (stream === 0) this.#connectionFrame(type, payload);
    else this.#streamFrame(type, stream, payload);
  }

  closed(error: Error | undefined): void {
    if (this.#isDown) return;
    this.#isDown = true;
    const gone = error ?? new Error("The runner closed its connection");
    this.#ready.reject(gone);
    this.#initDone?.reject(gone);
    const open = [...this.#streams.values()];
    this.#streams.clear();
    this.#waiting = 0;
    this.#events.down(error);
    for (const stream of open) stream.handler.down();
  }

  #connectionFrame(type: number, payload: Buffer): void {
    switch (type) {
      case FRAME.READY:
        if (this.#isReady) throw new ProtocolError("READY twice");
        this.#isReady = true;
        this.#sayReady(jsonObject(payload));
        return;
      case FRAME.INIT_DONE: {
        const waiting = this.#initDone;
        if (!waiting) throw new ProtocolError("INIT_DONE without INIT");
        waiting.resolve(jsonObject(payload));
        return;
      }
      case FRAME.LOG:
        this.#chargeUnbound(payload.length);
        this.#events.strayLog(logFd(payload), payload.subarray(1));
        return;
      default:
        throw new ProtocolError(`Frame type ${type} has no place on stream 0`);
    }
  }

  #sayReady(message: Record<string, unknown>): void {
    this.#holds = message.holds === true;
    this.#events.ready(message);
    this.#ready.resolve(message);
  }

  #chargeUnbound(bytes: number): void {
    const now = performance.now();
    const refilled = this.#unboundLeft + (now - this.#unboundAtMs) * UNBOUND_BYTES_PER_MS;
    this.#unboundLeft = Math.min(UNBOUND_BYTES, refilled) - bytes - FRAME_COST_BYTES;
    this.#unboundAtMs = now;
    if (this.#unboundLeft < 0)
      throw new ProtocolError("Too many frames that belong to no open invocation");
  }

  #streamFrame(type: number, id: number, payload: Buffer): void {
    const stream = this.#streams.get(id);
    if (!stream) {
      // Late output, credit and what crossed a CANCEL are nobody's fault; a stream that was never opened is.
      if (id < this.#nextStream && type !== FRAME.HEAD && type !== FRAME.DATA) {
        this.#chargeUnbound(payload.length);
        return;
      }
      throw new ProtocolError("A frame for a stream that is not open");
    }
    switch (type) {
      case FRAME.HEAD:
        if (stream.headSeen) throw new ProtocolError("HEAD twice");
        if (!stream.begun) throw new ProtocolError("HEAD of a call that waits behind another");
        stream.headSeen = true;
        stream.handler.head(jsonObject(payload));
        return;
      case FRAME.DATA:
        stream.receiveData(payload);
        return;
      case FRAME.END: {
        if (!stream.headSeen) throw new ProtocolError("END before HEAD");
        const trailer = jsonObject(payload);
        this.#close(id, stream, () => stream.handler.end(trailer));
        this.#events.answered();
        return;
      }
      case FRAME.ERROR: {
        const error = jsonObject(payload);
        this.#close(id, stream, () => stream.handler.error(error));
        return;
      }
      case FRAME.LOG:
        stream.receiveLog(logFd(payload), payload.subarray(1));
        return;
      case FRAME.WINDOW:
        stream.receiveCredit(payload);
        return;
      default:
        throw new ProtocolError(`Frame type ${type} does not come from a runner`);
    }
  }
}

function logFd(payload: Buffer): 1 | 2 {
  const fd = payload[0];
  if (fd !== 1 && fd !== 2) throw new ProtocolError("A LOG frame starts with 1 or 2");
  return fd;
}
