import { isUtf8 } from "node:buffer";

/** Frame types (README.md, "Frame types"). */
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

/** Bytes of a frame's header. */
export const HEADER_BYTES = 12;
/** The longest payload of any frame. */
export const MAX_PAYLOAD_BYTES = 262_144;
/** The longest payload of a DATA frame. */
export const MAX_DATA_BYTES = 65_536;
/** Bytes each direction of a stream may have in flight. */
export const WINDOW_BYTES = 262_144;
/** Stream numbers are unsigned 32-bit and never used twice on a connection. */
export const MAX_STREAM = 0xffff_ffff;

/** A peer broke the protocol; its connection is ended. The message never holds bytes of a payload. */
export class ProtocolError extends Error {
  override name = "ProtocolError";
}

const KNOWN = new Set<number>(Object.values(FRAME));
const EMPTY = Buffer.alloc(0);
/** Payloads up to this are copied behind their header: one small copy is cheaper than a second element of a writev. */
const SMALL_BYTES = 4096;

/**
 * One frame as the buffers to write, in order: one for small payloads, header and payload otherwise (the payload is not copied and
 * must stay unchanged until it is written). Throws ProtocolError when the payload fits no frame.
 */
export function encodeFrame(type: number, stream: number, payload: Uint8Array = EMPTY): Buffer[] {
  const length = payload.length;
  if (length > MAX_PAYLOAD_BYTES)
    throw new ProtocolError(`A payload of ${length} bytes fits no frame`);
  const small = length <= SMALL_BYTES;
  const bytes = Buffer.allocUnsafe(small ? HEADER_BYTES + length : HEADER_BYTES);
  bytes.writeUInt32LE(length, 0);
  bytes.writeUInt32LE(stream, 4);
  bytes.writeUInt32LE(type, 8);
  if (small) {
    bytes.set(payload, HEADER_BYTES);
    return [bytes];
  }
  return [bytes, Buffer.from(payload.buffer, payload.byteOffset, length)];
}

/** A JSON payload. Throws ProtocolError when it fits no frame. */
export function jsonPayload(value: object): Buffer {
  const payload = Buffer.from(JSON.stringify(value));
  if (payload.length > MAX_PAYLOAD_BYTES)
    throw new ProtocolError(`A JSON payload of ${payload.length} bytes fits no frame`);
  return payload;
}

/** The JSON object of a payload; anything else throws ProtocolError. */
export function jsonObject(payload: Buffer): Record<string, unknown> {
  if (!isUtf8(payload)) throw new ProtocolError("A JSON payload is not UTF-8");
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

/** The bytes a WINDOW frame grants. Throws ProtocolError unless they are 1 or more. */
export function windowCredit(payload: Buffer): number {
  if (payload.length !== 4) throw new ProtocolError("A WINDOW frame has 4 bytes of payload");
  const credit = payload.readUInt32LE(0);
  if (credit === 0) throw new ProtocolError("A WINDOW frame that grants nothing");
  return credit;
}

/** Takes one whole frame; gives false to stop the decoder. */
export type FrameSink = (type: number, stream: number, payload: Buffer) => boolean;

/**
 * Splits a byte stream into frames. Holds at most one unfinished frame (256 KiB and its header). A payload that arrives in one piece
 * is a view of the chunk it came in, so whoever keeps a small one for long should copy it.
 */
export class FrameDecoder {
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  #type = 0;
  #stream = 0;
  /** The payload under way, and how much of it is there. */
  #payload: Buffer | undefined;
  #payloadBytes = 0;

  /** Whether a frame has begun and is not whole: an end of file now is a truncation. */
  get partial(): boolean {
    return this.#headerBytes > 0 || this.#payload !== undefined;
  }

  /** Decodes `chunk`; throws ProtocolError at the first malformed byte, after which the decoder is not to be used. */
  push(chunk: Buffer, sink: FrameSink): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#payload) {
        const taken = chunk.copy(this.#payload, this.#payloadBytes, at);
        at += taken;
        this.#payloadBytes += taken;
        if (this.#payloadBytes < this.#payload.length) return;
        const payload = this.#payload;
        this.#payload = undefined;
        if (!sink(this.#type, this.#stream, payload)) return;
        continue;
      }
      let header = chunk;
      let headerAt = at;
      if (this.#headerBytes > 0 || chunk.length - at < HEADER_BYTES) {
        const taken = chunk.copy(this.#header, this.#headerBytes, at);
        at += taken;
        this.#headerBytes += taken;
        if (this.#headerBytes < HEADER_BYTES) return;
        this.#headerBytes = 0;
        header = this.#header;
        headerAt = 0;
      } else at += HEADER_BYTES;
      const length = header.readUInt32LE(headerAt);
      if (length > MAX_PAYLOAD_BYTES) throw new ProtocolError("A frame is longer than 256 KiB");
      this.#stream = header.readUInt32LE(headerAt + 4);
      this.#type = header.readUInt32LE(headerAt + 8);
      if (this.#type > 0xff) throw new ProtocolError("A frame's reserved bytes are not zero");
      if (!KNOWN.has(this.#type)) throw new ProtocolError(`Frame type ${this.#type} is unknown`);
      if (chunk.length - at < length) {
        this.#payload = Buffer.allocUnsafeSlow(length);
        this.#payloadBytes = 0;
        continue;
      }
      const payload = length === 0 ? EMPTY : chunk.subarray(at, at + length);
      at += length;
      if (!sink(this.#type, this.#stream, payload)) return;
    }
  }
}
