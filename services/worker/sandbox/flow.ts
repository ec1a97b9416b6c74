/** Bytes each direction of a stream may have in flight, and the largest DATA payload (runtime/protocol, "Flow control"). */
export const WINDOW_BYTES = 262_144;
export const MAX_DATA_BYTES = 65_536;

/** A peer broke the protocol; its connection is ended. The message never holds payload bytes. */
export class ProtocolError extends Error {
  override name = "ProtocolError";
}

/** The receiver's half of one direction: what the peer may still send, and what it must be told it may. */
export class ReceiveWindow {
  #left = WINDOW_BYTES;
  #consumed = 0;

  /** Counts a DATA payload in; throws when it is empty, too large or beyond the window. */
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

  get left(): number {
    return this.#left;
  }

  take(bytes: number): void {
    this.#left -= bytes;
  }

  /** Adds a WINDOW frame's credit; throws when the peer grants more than any window can be. */
  add(payload: Buffer): void {
    if (payload.length !== 4) throw new ProtocolError("A WINDOW frame has 4 bytes of payload");
    const credit = payload.readUInt32LE(0);
    if (credit === 0) throw new ProtocolError("A WINDOW frame that grants nothing");
    this.#left += credit;
    if (this.#left > WINDOW_BYTES) throw new ProtocolError("More credit than a window holds");
  }
}

export interface DataSource {
  /** The sink has taken that many bytes. */
  consumed(bytes: number): void;
}

export interface DataSink {
  /** Bytes it takes now. */
  credit(): number;
  sendData(bytes: Buffer): void;
}

/**
 * Moves DATA from one hop to the next. It holds no more than the source's window, because credit goes back to the source only as the
 * sink takes bytes.
 */
export class Pump {
  readonly #source: DataSource;
  readonly #sink: DataSink;
  #held: Buffer[] = [];
  #bytes = 0;
  #onDrained: (() => void) | undefined;
  #stopped = false;

  constructor(source: DataSource, sink: DataSink) {
    this.#source = source;
    this.#sink = sink;
  }

  /** Bytes handed to the sink so far. */
  get bytes(): number {
    return this.#bytes;
  }

  push(data: Buffer): void {
    if (this.#stopped) return;
    if (this.#held.length === 0 && data.length <= this.#sink.credit()) {
      this.#pass(data);
      return;
    }
    // The held bytes are a view of a read buffer that would otherwise stay alive whole.
    this.#held.push(Buffer.from(data));
    this.resume();
  }

  /** To be called when the sink got credit. */
  resume(): void {
    while (this.#held.length > 0) {
      const head = this.#held[0] as Buffer;
      const credit = this.#sink.credit();
      if (credit === 0) return;
      if (head.length <= credit) {
        this.#held.shift();
        this.#pass(head);
      } else {
        this.#held[0] = head.subarray(credit);
        this.#pass(head.subarray(0, credit));
      }
    }
    const drained = this.#onDrained;
    this.#onDrained = undefined;
    drained?.();
  }

  /** Runs `then` once everything pushed before has been taken by the sink. */
  whenDrained(then: () => void): void {
    if (this.#held.length === 0) then();
    else this.#onDrained = then;
  }

  stop(): void {
    this.#stopped = true;
    this.#held = [];
    this.#onDrained = undefined;
  }

  #pass(data: Buffer): void {
    this.#sink.sendData(data);
    this.#bytes += data.length;
    this.#source.consumed(data.length);
  }
}
