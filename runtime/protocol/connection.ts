import type { Socket } from "node:net";
import { encodeFrame, FRAME, FrameDecoder, jsonPayload, ProtocolError } from "./frames.ts";

/** Who hears a connection's frames. */
export interface FrameReceiver {
  /** One frame; the payload may be a view of a larger read. Throwing ends the connection with that error. */
  frame(type: number, stream: number, payload: Buffer): void;
  /** Once, whatever the cause; `error` when it was not a plain end. */
  closed(error: Error | undefined): void;
  /** The peer reads again after `congested` was true. */
  drained?(): void;
}

/** Writes of one turn up to this many bytes are joined: each write wakes the peer, which costs more than the copy. */
const JOIN_BYTES = 16_384;
/** More than this waiting for the peer to read: DATA should wait (`congested`). */
const CONGESTED_BYTES = 1024 * 1024;
/** A peer that leaves this much unread is not working; windows keep sound ones far below. */
const MAX_QUEUED_BYTES = 256 * 1024 * 1024;

/** One connection that speaks frames. Frames sent in one turn of the event loop leave in one write. */
export class FrameConnection {
  readonly #socket: Socket;
  readonly #decoder = new FrameDecoder();
  #receiver: FrameReceiver;
  #out: Buffer[] = [];
  #outBytes = 0;
  #scheduled = false;
  #congested = false;
  #closed = false;
  #error: Error | undefined;
  readonly #sink = (type: number, stream: number, payload: Buffer): boolean => {
    this.#receiver.frame(type, stream, payload);
    return !this.#socket.destroyed;
  };
  readonly #flush = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  /** Starts reading `socket` at once; from now on nobody else may read or write it. */
  constructor(socket: Socket, receiver: FrameReceiver) {
    this.#socket = socket;
    this.#receiver = receiver;
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("error", (error) => {
      this.#error ??= error;
    });
    socket.on("end", () => {
      if (this.#decoder.partial) this.#error ??= new ProtocolError("The peer stopped in a frame");
      // A peer that will not write will not read an answer either.
      socket.destroy();
    });
    socket.on("drain", () => this.#drained());
    socket.on("close", () => {
      if (this.#closed) return;
      this.#closed = true;
      this.#out = [];
      this.#receiver.closed(this.#error);
    });
  }

  get open(): boolean {
    return !this.#closed && !this.#socket.destroyed;
  }

  /** Much is waiting for the peer to read: DATA should wait for `drained`. Other frames may always be sent. */
  get congested(): boolean {
    return this.#congested;
  }

  /** From the next frame on, even within the same read, another hears them. */
  handOver(receiver: FrameReceiver): void {
    this.#receiver = receiver;
  }

  /** Queues one frame; nothing happens once the connection is closed. Throws ProtocolError when the payload fits no frame. */
  send(type: number, stream: number, payload?: Uint8Array): void {
    if (this.#socket.destroyed) return;
    for (const part of encodeFrame(type, stream, payload)) {
      this.#out.push(part);
      this.#outBytes += part.length;
    }
    if (!this.#scheduled) {
      this.#scheduled = true;
      process.nextTick(this.#flush);
    }
    const queuedBytes = this.#outBytes + this.#socket.writableLength;
    if (queuedBytes > CONGESTED_BYTES) this.#congested = true;
    if (queuedBytes > MAX_QUEUED_BYTES) this.destroy(new ProtocolError("The peer does not read"));
  }

  /** Queues one frame with a JSON payload; throws ProtocolError when it fits no frame. */
  sendJson(type: number, stream: number, value: object): void {
    this.send(type, stream, jsonPayload(value));
  }

  /** Grants the peer `creditBytes` more of DATA on a stream. */
  sendWindow(stream: number, creditBytes: number): void {
    const payload = Buffer.allocUnsafe(4);
    payload.writeUInt32LE(creditBytes, 0);
    this.send(FRAME.WINDOW, stream, payload);
  }

  /** Writes what was sent in this turn now instead of at its end. */
  flush(): void {
    const out = this.#out;
    const first = out[0];
    if (first === undefined) return;
    const bytes = this.#outBytes;
    this.#out = [];
    this.#outBytes = 0;
    const socket = this.#socket;
    if (socket.destroyed || !socket.writable) return;
    if (out.length === 1) socket.write(first);
    else if (bytes <= JOIN_BYTES) socket.write(Buffer.concat(out, bytes));
    else {
      socket.cork();
      for (const part of out) socket.write(part);
      socket.uncork();
    }
    if (this.#congested && !socket.writableNeedDrain) this.#drained();
  }

  /** Closes at once; what is queued is lost. The first error given is the one `closed` reports. */
  destroy(error?: Error): void {
    this.#error ??= error;
    this.#socket.destroy();
  }

  /** Writes what was sent, then closes. */
  end(): void {
    this.flush();
    this.#socket.end();
  }

  /** Whether the connection keeps the process alive. */
  ref(): void {
    this.#socket.ref();
  }

  unref(): void {
    this.#socket.unref();
  }

  #drained(): void {
    if (!this.#congested) return;
    this.#congested = false;
    this.#receiver.drained?.();
  }

  #receive(chunk: Buffer): void {
    try {
      this.#decoder.push(chunk, this.#sink);
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error(String(error)));
    }
  }
}
