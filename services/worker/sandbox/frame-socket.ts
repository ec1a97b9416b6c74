import type { Socket } from "node:net";
import { ProtocolError } from "./flow.ts";

/** Frame types (runtime/protocol/README.md). */
export const FRAME = {
  INIT: 0x01,
  INVOKE: 0x02,
  DATA: 0x03,
  END: 0x04,
  CANCEL: 0x05,
  WINDOW: 0x06,
  RESTORED: 0x07,
  RECALL: 0x08,
  READY: 0x10,
  INIT_DONE: 0x11,
  HEAD: 0x12,
  ERROR: 0x13,
  LOG: 0x14,
  REQUEST: 0x20,
  REPLY: 0x21,
  EVENT: 0x22,
} as const;

export interface FrameReceiver {
  /** A payload is a view that is valid until this returns. Throwing ends the connection. */
  frame(type: number, stream: number, payload: Buffer): void;
  /** Once, whatever the cause; `error` when it was not a plain end. */
  closed(error: Error | undefined): void;
  /** What was read, before the frames in it. */
  reading?(bytes: Buffer): void;
}

const HEADER_BYTES = 12;
const MAX_PAYLOAD_BYTES = 262_144;
const EMPTY = Buffer.alloc(0);
/** Payloads up to this are copied behind their header. */
const SMALL_BYTES = 4096;

/**
 * When queued frames leave: at the end of the callback that sent them, or of the turn of the event loop, which joins what several
 * sockets led to.
 */
export type FlushAt = "callback" | "turn";

/** One connection that speaks frames. Frames sent together leave in one write. */
export class FrameSocket {
  readonly #socket: Socket;
  #receiver: FrameReceiver;
  /** Reads of an unfinished frame; joined once it is whole, so that a trickle of bytes costs no more than a stream. */
  #held: Buffer[] = [];
  #heldBytes = 0;
  #neededBytes = HEADER_BYTES;
  #out: Buffer[] = [];
  #outBytes = 0;
  #closed = false;
  #error: Error | undefined;
  readonly #schedule: (flush: () => void) => void;
  readonly #flushLater = (): void => this.#flush();
  readonly #beforeSend: (() => void) | undefined;
  #skipping: { to: Buffer; done: () => void } | undefined;

  /** `beforeSend` is called just before what was queued leaves. */
  constructor(
    socket: Socket,
    receiver: FrameReceiver,
    flushAt: FlushAt = "callback",
    beforeSend?: () => void,
  ) {
    this.#socket = socket;
    this.#beforeSend = beforeSend;
    this.#receiver = receiver;
    this.#schedule = flushAt === "turn" ? setImmediate : process.nextTick;
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("error", (error) => {
      this.#error ??= error;
    });
    socket.on("end", () => socket.destroy());
    socket.on("close", () => {
      if (this.#closed) return;
      this.#closed = true;
      this.#receiver.closed(this.#error);
    });
  }

  get open(): boolean {
    return !this.#closed && !this.#socket.destroyed;
  }

  /** From the next frame on, even within the same read, another hears them. */
  handOver(receiver: FrameReceiver): void {
    this.#receiver = receiver;
  }

  /** Hands what was sent to the kernel now; whether all of it found room there. */
  flush(): boolean {
    this.#flush();
    return this.#socket.writableLength === 0;
  }

  /**
   * Throws away what has been begun and all that comes until `mark` has come, whatever it is; calls `done` then. Frames follow the mark. Not
   * called when the connection closes first.
   */
  skipTo(mark: Buffer, done: () => void): void {
    this.#skipping = { to: mark, done };
    this.#held = [];
    this.#heldBytes = 0;
    this.#neededBytes = HEADER_BYTES;
  }

  send(type: number, stream: number, payload: Buffer = EMPTY): void {
    if (this.#socket.destroyed) return;
    const small = payload.length <= SMALL_BYTES;
    const bytes = Buffer.allocUnsafe(small ? HEADER_BYTES + payload.length : HEADER_BYTES);
    bytes.writeUInt32LE(payload.length, 0);
    bytes.writeUInt32LE(stream, 4);
    bytes.writeUInt32LE(type, 8);
    if (small) payload.copy(bytes, HEADER_BYTES);
    if (this.#out.length === 0) this.#schedule(this.#flushLater);
    this.#out.push(bytes);
    this.#outBytes += bytes.length;
    // A view of a read buffer stays valid while the write holds it: Node allocates a new one for each read.
    if (!small) {
      this.#out.push(payload);
      this.#outBytes += payload.length;
    }
  }

  /** One write for all: each wakes the other process, which costs more than copying a few kilobytes. */
  #flush(): void {
    const out = this.#out;
    const bytes = this.#outBytes;
    this.#out = [];
    this.#outBytes = 0;
    const socket = this.#socket;
    if (socket.destroyed || out.length === 0) return;
    this.#beforeSend?.();
    if (out.length === 1) socket.write(out[0] as Buffer);
    else if (bytes <= 4 * SMALL_BYTES) socket.write(Buffer.concat(out, bytes));
    else {
      socket.cork();
      for (const part of out) socket.write(part);
      socket.uncork();
    }
  }

  sendJson(type: number, stream: number, value: object): void {
    const payload = Buffer.from(JSON.stringify(value));
    if (payload.length > MAX_PAYLOAD_BYTES)
      throw new ProtocolError(`A JSON payload of ${payload.length} bytes fits no frame`);
    this.send(type, stream, payload);
  }

  sendWindow(stream: number, credit: number): void {
    const payload = Buffer.allocUnsafe(4);
    payload.writeUInt32LE(credit, 0);
    this.send(FRAME.WINDOW, stream, payload);
  }

  destroy(error?: Error): void {
    this.#error ??= error;
    this.#socket.destroy();
  }

  /** Flushes what was sent, then closes. */
  end(): void {
    this.#flush();
    this.#socket.end();
  }

  /** What follows the mark; nothing while it has not come. What may be its beginning is held. */
  #skip(chunk: Buffer): Buffer {
    const skipping = this.#skipping;
    if (!skipping) return chunk;
    const bytes = this.#heldBytes > 0 ? Buffer.concat([...this.#held, chunk]) : chunk;
    const at = bytes.indexOf(skipping.to);
    if (at < 0) {
      const tail = Buffer.from(bytes.subarray(-(skipping.to.length - 1)));
      this.#held = [tail];
      this.#heldBytes = tail.length;
      return EMPTY;
    }
    this.#skipping = undefined;
    this.#held = [];
    this.#heldBytes = 0;
    skipping.done();
    return bytes.subarray(at + skipping.to.length);
  }

  #receive(chunk: Buffer): void {
    let bytes = this.#skip(chunk);
    if (bytes.length === 0) return;
    if (this.#heldBytes > 0) {
      // A copy, because a held part must not keep a whole read buffer alive.
      this.#held.push(Buffer.from(bytes));
      this.#heldBytes += bytes.length;
      if (this.#heldBytes < this.#neededBytes) return;
      bytes = Buffer.concat(this.#held, this.#heldBytes);
      this.#held = [];
      this.#heldBytes = 0;
    }
    try {
      let at = 0;
      this.#receiver.reading?.(bytes);
      this.#neededBytes = HEADER_BYTES;
      while (bytes.length - at >= HEADER_BYTES) {
        const length = bytes.readUInt32LE(at);
        if (length > MAX_PAYLOAD_BYTES) throw new ProtocolError("A frame is longer than 256 KiB");
        const type = bytes.readUInt32LE(at + 8);
        if (type > 0xff) throw new ProtocolError("A frame's reserved bytes are not zero");
        const end = at + HEADER_BYTES + length;
        if (bytes.length < end) {
          this.#neededBytes = HEADER_BYTES + length;
          break;
        }
        this.#receiver.frame(
          type,
          bytes.readUInt32LE(at + 4),
          bytes.subarray(at + HEADER_BYTES, end),
        );
        if (this.#socket.destroyed) return;
        at = end;
        if (this.#skipping) {
          // The receiver wants nothing more of what has been read already, unless the mark is in it.
          this.#receive(bytes.subarray(at));
          return;
        }
      }
      if (at < bytes.length) {
        this.#held.push(Buffer.from(bytes.subarray(at)));
        this.#heldBytes = bytes.length - at;
      }
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error(String(error)));
    }
  }
}

/** How many frames that end an answer on a stream that `isOpen` are whole in what was read. */
export function answersIn(bytes: Buffer, isOpen: (stream: number) => boolean): number {
  let count = 0;
  for (let at = 0; bytes.length - at >= HEADER_BYTES; ) {
    const type = bytes.readUInt32LE(at + 8);
    const ends = type === FRAME.END || type === FRAME.ERROR;
    const stream = bytes.readUInt32LE(at + 4);
    at += HEADER_BYTES + bytes.readUInt32LE(at);
    if (ends && at <= bytes.length && isOpen(stream)) count++;
  }
  return count;
}

/** A JSON object from a payload; anything else is a protocol error. */
export function jsonObject(payload: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(payload.toString("utf8"));
  } catch {
    throw new ProtocolError("A payload is not JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new ProtocolError("A payload is not a JSON object");
  return value as Record<string, unknown>;
}
