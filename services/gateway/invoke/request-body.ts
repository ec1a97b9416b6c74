import type { IncomingMessage } from "node:http";
import { CloisterError } from "#errors/catalogue";

/** A body that is in memory, or the pieces of one that is still coming. */
export type RequestBody = { whole: Buffer } | { pieces: AsyncIterable<Buffer> };

export interface BodyLimits {
  /** Bodies up to this size are gathered. */
  wholeBytes: number;
  /** Larger ones are refused, whether they say so or not. */
  maxBytes: number;
}

const EMPTY: RequestBody = { whole: Buffer.alloc(0) };

const tooLarge = (maxBytes: number): CloisterError =>
  new CloisterError("body_too_large", `The body is larger than ${maxBytes} bytes`);

/**
 * Takes a request's body: at once when there is none, gathered when it is small, else as pieces to be read with backpressure. A
 * chunked body that does not come with its head is never waited for: its function may want to answer while it is sent.
 * Throws or rejects with `body_too_large`; pieces throw it when they turn out to be too many.
 */
export function takeBody(
  request: IncomingMessage,
  limits: BodyLimits,
): RequestBody | Promise<RequestBody> {
  const declared = request.headers["content-length"];
  if (declared !== undefined) {
    const bytes = Number(declared);
    if (bytes > limits.maxBytes) throw tooLarge(limits.maxBytes);
    if (bytes === 0) return EMPTY;
    if (bytes > limits.wholeBytes) return { pieces: pieces([], request, limits.maxBytes) };
    return gather(request, limits, false);
  }
  if (request.headers["transfer-encoding"] === undefined) return EMPTY;
  return gather(request, limits, limits.wholeBytes < limits.maxBytes);
}

/** Gathers the body; when `hurried`, only as far as it has arrived already. */
function gather(
  request: IncomingMessage,
  limits: BodyLimits,
  hurried: boolean,
): Promise<RequestBody> {
  return new Promise((resolve, reject) => {
    const held: Buffer[] = [];
    let bytes = 0;
    let settled = false;
    const settle = (): boolean => {
      if (settled) return false;
      settled = true;
      request.off("data", onData);
      request.off("end", onEnd);
      return true;
    };
    const stream = (): void => {
      if (!settle()) return;
      request.pause();
      resolve({ pieces: pieces(held, request, limits.maxBytes) });
    };
    const onData = (chunk: Buffer): void => {
      held.push(chunk);
      bytes += chunk.length;
      if (bytes <= limits.wholeBytes) return;
      if (hurried) stream();
      else if (settle()) {
        request.resume();
        reject(tooLarge(limits.maxBytes));
      }
    };
    const onEnd = (): void => {
      if (settle())
        resolve({ whole: held.length === 1 ? (held[0] as Buffer) : Buffer.concat(held) });
    };
    request.on("data", onData);
    request.on("end", onEnd);
    // What came in the same packet as the head is here by then.
    if (hurried) setImmediate(stream);
  });
}

async function* pieces(
  held: Buffer[],
  request: IncomingMessage,
  maxBytes: number,
): AsyncGenerator<Buffer> {
  let bytes = 0;
  const counted = (piece: Buffer): Buffer => {
    bytes += piece.length;
    if (bytes > maxBytes) throw tooLarge(maxBytes);
    return piece;
  };
  try {
    for (const piece of held) yield counted(piece);
    // Whoever stops reading early still has an answer to send on the same connection.
    for await (const piece of request.iterator({ destroyOnReturn: false }))
      yield counted(piece as Buffer);
  } finally {
    // What nobody reads is read away, so that the connection can be used again.
    request.resume();
  }
}
