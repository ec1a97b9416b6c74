import type { InvocationStream } from "./stream.ts";

/** What may be sent as a body. */
export type BodyContent = Uint8Array | string | AsyncIterable<Uint8Array>;

/** Sends a body through a stream's window. Feed it the stream's `onCredit`, and `stop` it when the stream is over. */
export class BodySender {
  readonly #stream: Pick<InvocationStream, "credit" | "sendData">;
  #wake: (() => void) | undefined;
  #stopped = false;

  constructor(stream: Pick<InvocationStream, "credit" | "sendData">) {
    this.#stream = stream;
  }

  /** More may be sent. */
  readonly onCredit = (): void => {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  };

  /** Nobody wants the rest: `send` gives false and reads its source no further. */
  stop(): void {
    this.#stopped = true;
    this.onCredit();
  }

  /** Sends all of `content`, never holding more than one piece of it; true when it is all sent. Rejects when the source fails. */
  async send(content: BodyContent): Promise<boolean> {
    if (typeof content === "string") return this.#sendPiece(Buffer.from(content));
    if (content instanceof Uint8Array) return this.#sendPiece(content);
    for await (const piece of content) {
      if (!(await this.#sendPiece(piece))) return false;
    }
    return !this.#stopped;
  }

  async #sendPiece(bytes: Uint8Array): Promise<boolean> {
    let at = 0;
    while (at < bytes.length && !this.#stopped) {
      const credit = this.#stream.credit;
      if (credit > 0) {
        const piece = bytes.subarray(at, at + credit);
        this.#stream.sendData(piece);
        at += piece.length;
      } else
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
    }
    return !this.#stopped;
  }
}

/** A body that arrives, as a web stream. It holds at most a window, because credit goes back only as the reader takes pieces. */
export class BodyReceiver {
  readonly stream: ReadableStream<Uint8Array>;
  readonly #consumed: (bytes: number) => void;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  readonly #held: Buffer[] = [];
  #wanted: (() => void) | undefined;
  #over = false;

  /** `consumed` returns credit to the sender; `cancelled` is called when the reader wants no more. */
  constructor(consumed: (bytes: number) => void, cancelled: () => void) {
    this.#consumed = consumed;
    this.stream = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => this.#pull(),
        cancel: () => {
          this.#over = true;
          this.#held.length = 0;
          this.#wanted?.();
          cancelled();
        },
      },
      { highWaterMark: 0 },
    );
  }

  readonly onData = (bytes: Buffer): void => {
    if (this.#over) return;
    this.#held.push(bytes);
    this.#wake();
  };

  /** The body is whole. */
  readonly onEnd = (): void => {
    if (this.#over) return;
    this.#over = true;
    if (this.#held.length === 0) this.#controller.close();
    this.#wake();
  };

  /** The body breaks off: what the reader has not taken is dropped. */
  fail(error: Error): void {
    if (this.#over && this.#held.length === 0) return;
    this.#over = true;
    this.#held.length = 0;
    this.#controller.error(error);
    this.#wake();
  }

  #wake(): void {
    const wanted = this.#wanted;
    this.#wanted = undefined;
    wanted?.();
  }

  async #pull(): Promise<void> {
    if (this.#held.length === 0 && !this.#over)
      await new Promise<void>((resolve) => {
        this.#wanted = resolve;
      });
    const piece = this.#held.shift();
    if (!piece) return;
    this.#controller.enqueue(piece);
    this.#consumed(piece.length);
    if (this.#over && this.#held.length === 0) this.#controller.close();
  }
}
