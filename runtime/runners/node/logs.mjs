import { AsyncLocalStorage } from "node:async_hooks";
import { Writable } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import { MAX_DATA_BYTES } from "./wire.mjs";

const MAX_LOG_BYTES = 1 << 20;
const TRUNCATED = "[cloister] log truncated after 1 MiB\n";
/** A line without end leaves in pieces of this many characters. */
const PIECE_CHARACTERS = 16_384;

/** The invocation whose code runs. */
export const currentCall = new AsyncLocalStorage();

/** Log of one invocation, or, with stream 0, of all that happens outside. */
export class CallLog {
  #wire;
  #stream;
  #leftBytes = MAX_LOG_BYTES;
  #partial = ["", ""];
  #decoders = [];

  constructor(wire, stream) {
    this.#wire = wire;
    this.#stream = stream;
  }

  /** Gives the log outside invocations its bound again; each invocation does so once. */
  renew() {
    this.#leftBytes = MAX_LOG_BYTES;
  }

  /** Takes text or bytes. Whole lines leave at once, so that a function which is killed has said what it said. */
  write(fd, chunk, encoding) {
    if (this.#leftBytes < 0) return;
    let text = this.#partial[fd - 1] + this.#text(fd, chunk, encoding);
    // What is beyond the bound is not even encoded.
    if (text.length > this.#leftBytes) text = `${text.slice(0, this.#leftBytes + 1)}\n`;
    let end = text.lastIndexOf("\n") + 1;
    if (end === 0 && text.length >= PIECE_CHARACTERS) end = text.length;
    this.#partial[fd - 1] = text.slice(end);
    if (end > 0) this.#send(fd, text.slice(0, end));
  }

  /** Sends what has no line feed yet. */
  finish() {
    for (const fd of [1, 2]) {
      const text = this.#partial[fd - 1] + (this.#decoders[fd]?.end() ?? "");
      this.#partial[fd - 1] = "";
      if (text) this.#send(fd, `${text}\n`);
    }
  }

  #text(fd, chunk, encoding) {
    if (typeof chunk === "string")
      return typeof encoding === "string" && !/^utf-?8$/i.test(encoding) && encoding !== "buffer"
        ? Buffer.from(chunk, encoding).toString()
        : chunk;
    // Bytes may end inside a character.
    this.#decoders[fd] ??= new StringDecoder("utf8");
    return this.#decoders[fd].write(chunk);
  }

  #send(fd, text) {
    const bytes = Buffer.from(text);
    const fits = Math.min(bytes.length, this.#leftBytes);
    for (let at = 0; at < fits; ) {
      let end = Math.min(at + MAX_DATA_BYTES - 1, fits);
      while (end > at && end < bytes.length && (bytes[end] & 0xc0) === 0x80) end--;
      if (end === at) break;
      this.#wire.sendLog(this.#stream, fd, bytes.subarray(at, end));
      at = end;
    }
    this.#leftBytes -= bytes.length;
    if (this.#leftBytes < 0) {
      const inLine = fits > 0 && bytes[fits - 1] !== 0x0a;
      this.#wire.sendLog(this.#stream, fd, Buffer.from(inLine ? `\n${TRUNCATED}` : TRUNCATED));
      this.#partial = ["", ""];
    }
    this.#wire.flush();
  }
}

/** Makes process.stdout, process.stderr and console write to `logOf()`. Descriptors 1 and 2 stay as they are for raw writes. */
export function captureOutput(logOf) {
  for (const [name, fd] of [
    ["stdout", 1],
    ["stderr", 2],
  ]) {
    let stream;
    const get = () => {
      stream ??= outputStream(fd, logOf);
      return stream;
    };
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get });
  }
}

function outputStream(fd, logOf) {
  const stream = new Writable({
    decodeStrings: false,
    write(chunk, encoding, done) {
      logOf().write(fd, chunk, encoding);
      done();
    },
    // As with Node's own: neither can be closed.
    destroy(_error, done) {
      done();
    },
  });
  stream.fd = fd;
  stream._type = "pipe";
  stream._isStdio = true;
  stream.end = (chunk, encoding, done) => {
    if (typeof chunk === "string" || ArrayBuffer.isView(chunk)) stream.write(chunk, encoding);
    const then = [chunk, encoding, done].find((value) => typeof value === "function");
    if (then) process.nextTick(then);
    return stream;
  };
  stream.destroy = stream.destroySoon = () => stream;
  return stream;
}
