import type { Socket } from "node:net";
import { FrameConnection, type FrameReceiver } from "./connection.ts";
import { FRAME, jsonObject, MAX_STREAM, ProtocolError } from "./frames.ts";
import {
  type AnswerHandler,
  AnswerStream,
  type CallHandler,
  CallStream,
  type InvocationStream,
  type StreamLink,
} from "./stream.ts";

export interface LinkEvents {
  /**
   * The peer opened a stream. Answer it by `link.takeCall` (this side asks: the gateway on a reply link) or `link.takeAnswer`
   * (this side answers: a runner) before returning, or by `link.refuse`. Absent when the peer may open none.
   */
  invoke?(id: number, head: Record<string, unknown>): void;
  /** A frame that belongs to the connection, not to an invocation: stream 0, REQUEST, REPLY, EVENT. Throwing ends the connection. */
  control?(type: number, stream: number, payload: Buffer): void;
  /** Once, after every open stream heard `onDown`. */
  closed?(error: Error | undefined): void;
}

/** The invocations of one connection. Who opens streams and who answers them are independent of each other. */
export class InvocationLink implements FrameReceiver, StreamLink {
  readonly connection: FrameConnection;
  readonly #events: LinkEvents;
  readonly #streams = new Map<number, InvocationStream>();
  /** The stream `invoke` is being told of. */
  #offered = 0;
  /** Highest number seen so far: streams up to it that are not open are closed, and what comes for them is dropped. */
  #highest = 0;

  constructor(socket: Socket, events: LinkEvents) {
    this.#events = events;
    this.connection = new FrameConnection(socket, this);
  }

  /** Invocations under way. */
  get streams(): number {
    return this.#streams.size;
  }

  get congested(): boolean {
    return this.connection.congested;
  }

  /** Opens a stream on which this side asks. Throws ProtocolError when the head fits no frame or no number is left. */
  call(head: object, handler: CallHandler): CallStream {
    return this.#opened(head, new CallStream(this, this.#nextId(), handler));
  }

  /** Opens a stream on which this side answers (the worker on a reply link). Throws as `call` does. */
  answer(head: object, handler: AnswerHandler): AnswerStream {
    return this.#opened(head, new AnswerStream(this, this.#nextId(), handler));
  }

  /** Within `invoke` only: this side asks on the stream the peer opened. */
  takeCall(id: number, handler: CallHandler): CallStream {
    return this.#taken(new CallStream(this, id, handler));
  }

  /** Within `invoke` only: this side answers on the stream the peer opened. */
  takeAnswer(id: number, handler: AnswerHandler): AnswerStream {
    return this.#taken(new AnswerStream(this, id, handler));
  }

  /** Tells the peer that nobody waits for what it opened `id` for; what it still sends there is dropped. */
  refuse(id: number): void {
    this.connection.send(FRAME.CANCEL, id);
  }

  send(type: number, stream: number, payload?: Uint8Array): void {
    if (this.#streams.has(stream)) this.connection.send(type, stream, payload);
  }

  sendJson(type: number, stream: number, value: object): void {
    if (this.#streams.has(stream)) this.connection.sendJson(type, stream, value);
  }

  sendWindow(stream: number, creditBytes: number): void {
    if (this.#streams.has(stream)) this.connection.sendWindow(stream, creditBytes);
  }

  forget(stream: number): void {
    this.#streams.delete(stream);
  }

  frame(type: number, id: number, payload: Buffer): void {
    if (type === FRAME.REQUEST || type === FRAME.REPLY || id === 0) {
      if (!this.#events.control) throw new ProtocolError(`Frame type ${type} is not expected`);
      this.#events.control(type, id, payload);
      return;
    }
    if (type === FRAME.INVOKE) {
      if (!this.#events.invoke) throw new ProtocolError("The peer may not open streams");
      if (id <= this.#highest) throw new ProtocolError("A stream number is used again");
      const head = jsonObject(payload);
      this.#highest = id;
      this.#offered = id;
      this.#events.invoke(id, head);
      this.#offered = 0;
      return;
    }
    const stream = this.#streams.get(id);
    if (stream) stream.receive(type, payload);
    else if (id > this.#highest)
      throw new ProtocolError("A frame for a stream that was never opened");
  }

  drained(): void {
    for (const stream of [...this.#streams.values()]) {
      if (this.congested) return;
      if (stream.open) stream.drained();
    }
  }

  closed(error: Error | undefined): void {
    for (const stream of [...this.#streams.values()]) stream.down(error);
    this.#events.closed?.(error);
  }

  #nextId(): number {
    if (this.#events.invoke) throw new Error("Only one side of a link opens streams");
    if (!this.connection.open) throw new Error("The connection is closed");
    if (this.#highest === MAX_STREAM) throw new ProtocolError("No stream number is left");
    return this.#highest + 1;
  }

  #opened<T extends InvocationStream>(head: object, stream: T): T {
    this.connection.sendJson(FRAME.INVOKE, stream.id, head);
    this.#highest = stream.id;
    this.#streams.set(stream.id, stream);
    return stream;
  }

  #taken<T extends InvocationStream>(stream: T): T {
    if (stream.id !== this.#offered) throw new Error("A stream is taken when it is offered");
    this.#streams.set(stream.id, stream);
    return stream;
  }
}
