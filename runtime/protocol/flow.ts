import { MAX_DATA_BYTES, ProtocolError, WINDOW_BYTES, windowCredit } from "./frames.ts";

/** The receiver's half of one direction: what the peer may still send, and what it must be told it may. */
export class ReceiveWindow {
  #left = WINDOW_BYTES;
  #consumed = 0;

  /** Counts a DATA payload in; throws ProtocolError when it is empty, too large or beyond the window. */
  accept(bytes: number): void {
    if (bytes < 1 || bytes > MAX_DATA_BYTES)
      throw new ProtocolError(`DATA of ${bytes} bytes; 1 to ${MAX_DATA_BYTES} are allowed`);
    if (bytes > this.#left) throw new ProtocolError("DATA beyond the window");
    this.#left -= bytes;
  }

  /** The reader has taken `bytes`; gives the credit to send now, 0 while less than half a window is owed. */
  consume(bytes: number): number {
    this.#consumed += bytes;
    if (this.#consumed < WINDOW_BYTES / 2) return 0;
    const credit = this.#consumed;
    this.#consumed = 0;
    this.#left += credit;
    return credit;
  }
}

/** The sender's half of one direction. */
export class SendWindow {
  #left = WINDOW_BYTES;

  /** Bytes that may be sent now. */
  get left(): number {
    return this.#left;
  }

  take(bytes: number): void {
    this.#left -= bytes;
  }

  /** Adds a WINDOW frame's credit; throws ProtocolError when it grants nothing or more than any window can be. */
  add(payload: Buffer): void {
    this.#left += windowCredit(payload);
    if (this.#left > WINDOW_BYTES) throw new ProtocolError("More credit than a window holds");
  }
}
