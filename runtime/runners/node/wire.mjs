import { closeSync, openSync, writeSync, writevSync } from "node:fs";
import { Socket } from "node:net";

// Frame types of runtime/protocol/README.md.
export const INIT = 0x01;
export const INVOKE = 0x02;
export const DATA = 0x03;
export const END = 0x04;
export const CANCEL = 0x05;
export const WINDOW = 0x06;
export const RESTORED = 0x07;
export const RECALL = 0x08;
export const READY = 0x10;
export const INIT_DONE = 0x11;
export const HEAD = 0x12;
export const ERROR = 0x13;
export const LOG = 0x14;

export const MAX_PAYLOAD_BYTES = 262_144;
export const MAX_DATA_BYTES = 65_536;
export const WINDOW_BYTES = 262_144;

/** Exit codes of sysexits.h: wrong use, and the peer broke the protocol. */
export const EXIT_USAGE = 64;
const EXIT_PROTOCOL = 76;

const HEADER_BYTES = 12;
const EMPTY = Buffer.alloc(0);
const SETTLED = Promise.resolve();

/** The worker broke the protocol. Nothing it says can be trusted from there on, so the runner ends. */
export class ProtocolError extends Error {}

/** The JSON object of a payload. */
export function parseObject(payload) {
  let value;
  try {
    value = JSON.parse(payload.toString());
  } catch {
    throw new ProtocolError("a payload is not JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new ProtocolError("a payload is not a JSON object");
  return value;
}

/** A frame with a text as payload, in one buffer. */
export function textFrame(type, stream, text) {
  const length = Buffer.byteLength(text);
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + length);
  writeHeader(bytes, type, stream, length);
  bytes.utf8Write(text, HEADER_BYTES);
  return bytes;
}

export const jsonFrame = (type, stream, value) => textFrame(type, stream, JSON.stringify(value));

function writeHeader(bytes, type, stream, length) {
  bytes.writeUInt32LE(length, 0);
  bytes.writeUInt32LE(stream, 4);
  bytes.writeUInt32LE(type, 8);
}

/** The socket at descriptor 3. Ends the process when the peer closes it or breaks the protocol. */
export class Wire {
  #fd;
  #socket;
  #receiver;
  #out = [];
  #outBytes = 0;
  #scheduled = false;
  /** Frames of a log that wait for the end of a rehearsal. */
  #heldLogs;
  #flush = () => {
    this.#scheduled = false;
    this.flush();
  };
  #flushAfterMicrotasks = () => process.nextTick(this.#flush);
  // The frame under way, when it did not come whole.
  #header = Buffer.allocUnsafeSlow(HEADER_BYTES);
  #headerBytes = 0;
  #type = 0;
  #stream = 0;
  #payload;
  #payloadBytes = 0;

  /**
   * `receiver.frame(type, stream, payload)` hears each frame; the payload is valid until it returns. `receiver.batch()` follows the
   * last frame of a read. Throws when `fd` is no socket.
   */
  constructor(fd, receiver) {
    this.#fd = fd;
    this.#receiver = receiver;
    this.#socket = new Socket({
      fd,
      readable: true,
      writable: true,
      onread: {
        // One buffer for all reads: what is kept is copied.
        buffer: Buffer.allocUnsafeSlow(MAX_DATA_BYTES + 4096),
        callback: (length, buffer) => {
          this.#receive(buffer, length);
          return true;
        },
      },
    });
    const end = () => process.exit(0);
    this.#socket.on("end", end).on("error", end).on("close", end);
    this.#socket.resume();
  }

  /**
   * Queues a whole frame. All frames of one turn leave in one write, also those that promises of this turn lead to: a Response gives
   * its body and its end some microtasks later, and each write wakes the worker, which costs more than making the answer.
   */
  send(frame) {
    this.#out.push(frame);
    this.#outBytes += frame.length;
    if (this.#scheduled) return;
    this.#scheduled = true;
    SETTLED.then(this.#flushAfterMicrotasks);
  }

  /** Queues a DATA frame of at most MAX_DATA_BYTES without copying its bytes, unless they are few. */
  sendData(stream, bytes) {
    const copied = bytes.length <= 4096;
    const header = Buffer.allocUnsafe(copied ? HEADER_BYTES + bytes.length : HEADER_BYTES);
    writeHeader(header, DATA, stream, bytes.length);
    if (copied) header.set(bytes, HEADER_BYTES);
    this.send(header);
    if (copied) return;
    this.#out.push(bytes);
    this.#outBytes += bytes.length;
  }

  sendWindow(stream, creditBytes) {
    const frame = Buffer.allocUnsafe(HEADER_BYTES + 4);
    writeHeader(frame, WINDOW, stream, 4);
    frame.writeUInt32LE(creditBytes, HEADER_BYTES);
    this.send(frame);
  }

  /** Text of one or more whole lines, at most MAX_DATA_BYTES - 1 bytes of it. */
  sendLog(stream, fd, bytes) {
    const frame = Buffer.allocUnsafe(HEADER_BYTES + 1 + bytes.length);
    writeHeader(frame, LOG, this.#heldLogs ? 0 : stream, bytes.length + 1);
    frame[HEADER_BYTES] = fd;
    frame.set(bytes, HEADER_BYTES + 1);
    if (this.#heldLogs) this.#heldLogs.push(frame);
    else this.send(frame);
  }

  /**
   * Until `done()`, `take(bytes)` is heard as if it had been read, the peer is not heard, and what is said is thrown away, but for what other
   * code logs meanwhile: that belongs to no invocation.
   */
  rehearse() {
    this.flush();
    const peer = this.#fd;
    const nowhere = openSync("/dev/null", "w");
    this.#fd = nowhere;
    this.#heldLogs = [];
    this.#socket.pause();
    return {
      take: (bytes) => this.#receive(bytes, bytes.length),
      done: () => {
        if (this.#fd === peer) return;
        this.flush();
        closeSync(nowhere);
        this.#fd = peer;
        const held = this.#heldLogs;
        this.#heldLogs = undefined;
        for (const frame of held) this.send(frame);
        this.flush();
        this.#socket.resume();
      },
    };
  }

  /** Whether a frame has come in part. */
  get midFrame() {
    return this.#headerBytes > 0 || this.#payload !== undefined;
  }

  /** Whether all that was flushed has left this process. */
  get idle() {
    return this.#socket.writableLength === 0;
  }

  /** Whether all that was sent has. */
  get allSent() {
    return this.#outBytes === 0 && this.idle;
  }

  /**
   * Writes what is queued now: straight to the kernel, so that it has left even if user code never gives the thread back or ends
   * the process. What the kernel does not take waits in the socket.
   */
  flush() {
    if (this.#outBytes === 0) return;
    let parts = this.#out;
    const bytes = this.#outBytes;
    this.#out = [];
    this.#outBytes = 0;
    const socket = this.#socket;
    if (socket.writableLength === 0) {
      let written = this.#writeNow(parts);
      if (written === bytes) return;
      let first = 0;
      while (written >= parts[first].length) written -= parts[first++].length;
      parts = parts.slice(first);
      parts[0] = parts[0].subarray(written);
    }
    socket.cork();
    for (const part of parts) socket.write(part);
    socket.uncork();
  }

  /** Runs `then` once all that was sent is with the kernel; at once if it is. */
  whenSent(then) {
    this.flush();
    if (this.idle) then();
    else this.#socket.write(EMPTY, then);
  }

  #writeNow(parts) {
    try {
      return parts.length === 1 ? writeSync(this.#fd, parts[0]) : writevSync(this.#fd, parts);
    } catch (error) {
      if (error.code === "EAGAIN") return 0;
      process.reallyExit(0);
    }
  }

  #receive(chunk, length) {
    try {
      this.#decode(chunk, length);
      this.#receiver.batch();
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      writeSync(2, `[cloister] protocol error: ${error.message}\n`);
      process.reallyExit(EXIT_PROTOCOL);
    }
  }

  #decode(chunk, length) {
    let at = 0;
    while (at < length) {
      if (this.#payload) {
        const taken = chunk.copy(this.#payload, this.#payloadBytes, at, length);
        at += taken;
        this.#payloadBytes += taken;
        if (this.#payloadBytes < this.#payload.length) return;
        const payload = this.#payload;
        this.#payload = undefined;
        this.#receiver.frame(this.#type, this.#stream, payload);
        continue;
      }
      let header = chunk;
      let headerAt = at;
      if (this.#headerBytes > 0 || length - at < HEADER_BYTES) {
        const taken = chunk.copy(this.#header, this.#headerBytes, at, length);
        at += taken;
        this.#headerBytes += taken;
        if (this.#headerBytes < HEADER_BYTES) return;
        this.#headerBytes = 0;
        header = this.#header;
        headerAt = 0;
      } else at += HEADER_BYTES;
      const size = header.readUInt32LE(headerAt);
      if (size > MAX_PAYLOAD_BYTES) throw new ProtocolError("a frame is longer than 256 KiB");
      this.#stream = header.readUInt32LE(headerAt + 4);
      this.#type = header.readUInt32LE(headerAt + 8);
      if (this.#type > 0xff) throw new ProtocolError("a frame's reserved bytes are not zero");
      if (length - at < size) {
        this.#payload = Buffer.allocUnsafeSlow(size);
        this.#payloadBytes = 0;
        continue;
      }
      const payload = size === 0 ? EMPTY : chunk.subarray(at, at + size);
      at += size;
      this.#receiver.frame(this.#type, this.#stream, payload);
    }
  }
}
