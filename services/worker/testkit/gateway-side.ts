import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WINDOW_BYTES } from "../sandbox/flow.ts";
import { FRAME, FrameSocket, jsonObject } from "../sandbox/frame-socket.ts";

export interface Answer {
  head?: Record<string, unknown>;
  body: Buffer;
  trailer?: Record<string, unknown>;
  error?: Record<string, unknown>;
}

interface Caller {
  body: Buffer | undefined;
  /** Gives credit for what it reads. */
  reads: boolean;
  chunks: Buffer[];
  answer: Answer;
  resolve: (answer: Answer) => void;
  attached: () => void;
  stalled: () => void;
  cancel: () => void;
  readOn: () => void;
}

export interface Call {
  answer: Promise<Answer>;
  attached: Promise<void>;
  /** A whole window has arrived and the caller does not read. */
  stalled: Promise<void>;
  /** Bytes of the answer that have arrived. */
  arrived: () => number;
  hangUp: () => void;
  readOn: () => void;
}

const bytesOf = (caller: Caller): number =>
  caller.chunks.reduce((sum, chunk) => sum + chunk.length, 0);

const SECRET = "a secret of sixteen characters";

/** The gateway's end of the reply link, as plain as the protocol allows: enough to be a caller in tests. */
export class GatewaySide {
  readonly secret = SECRET;
  readonly address: string;
  readonly #folder: string;
  readonly #server: Server;
  readonly #callers = new Map<string, Caller>();
  readonly #sockets = new Set<Socket>();
  links = 0;

  private constructor(folder: string) {
    this.#folder = folder;
    this.address = `unix:${join(folder, "gateway.sock")}`;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  static async listen(): Promise<GatewaySide> {
    const side = new GatewaySide(mkdtempSync(join(tmpdir(), "cloister-gateway-")));
    side.#server.listen(side.address.slice("unix:".length));
    await once(side.#server, "listening");
    return side;
  }

  /** Somebody waits for `invocation`; `body` is streamed once a worker is there. */
  call(invocation: string, options: { body?: Buffer; reads?: boolean } = {}): Call {
    const answer = Promise.withResolvers<Answer>();
    const attached = Promise.withResolvers<void>();
    const stalled = Promise.withResolvers<void>();
    const caller: Caller = {
      body: options.body,
      reads: options.reads ?? true,
      chunks: [],
      answer: { body: Buffer.alloc(0) },
      resolve: answer.resolve,
      attached: attached.resolve,
      stalled: stalled.resolve,
      cancel() {},
      readOn() {},
    };
    this.#callers.set(invocation, caller);
    return {
      answer: answer.promise,
      attached: attached.promise,
      stalled: stalled.promise,
      arrived: () => bytesOf(caller),
      hangUp: () => caller.cancel(),
      readOn: () => caller.readOn(),
    };
  }

  dropLinks(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.dropLinks();
    this.#server.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #accept(socket: Socket): void {
    this.links++;
    this.#sockets.add(socket);
    const streams = new Map<number, Caller>();
    const frames = new FrameSocket(socket, {
      frame: (type, stream, payload) => {
        if (type === FRAME.REQUEST) {
          const ok = jsonObject(payload).token === SECRET;
          if (ok) frames.sendJson(FRAME.REPLY, stream, { ok });
          else frames.destroy();
          return;
        }
        if (type === FRAME.INVOKE) {
          const caller = this.#callers.get(String(jsonObject(payload).invocation));
          if (!caller) {
            frames.send(FRAME.CANCEL, stream);
            return;
          }
          streams.set(stream, caller);
          this.#attach(frames, stream, caller);
          return;
        }
        const caller = streams.get(stream);
        if (!caller) return;
        if (type === FRAME.HEAD) caller.answer.head = jsonObject(payload);
        else if (type === FRAME.DATA) {
          caller.chunks.push(Buffer.from(payload));
          if (caller.reads) frames.sendWindow(stream, payload.length);
          else if (bytesOf(caller) === WINDOW_BYTES) caller.stalled();
        } else if (type === FRAME.END || type === FRAME.ERROR) {
          streams.delete(stream);
          caller.answer.body = Buffer.concat(caller.chunks);
          if (type === FRAME.END) caller.answer.trailer = jsonObject(payload);
          else caller.answer.error = jsonObject(payload);
          caller.resolve(caller.answer);
        } else if (type === FRAME.WINDOW)
          this.#sendBody(frames, stream, caller, payload.readUInt32LE(0));
      },
      closed: () => this.#sockets.delete(socket),
    });
  }

  #attach(frames: FrameSocket, stream: number, caller: Caller): void {
    caller.cancel = () => frames.send(FRAME.CANCEL, stream);
    caller.readOn = () => {
      caller.reads = true;
      frames.sendWindow(stream, bytesOf(caller));
    };
    caller.attached();
    if (caller.body) this.#sendBody(frames, stream, caller, WINDOW_BYTES);
  }

  #sendBody(frames: FrameSocket, stream: number, caller: Caller, credit: number): void {
    let left = credit;
    while (caller.body && left > 0) {
      const piece = caller.body.subarray(0, Math.min(left, 65_536));
      left -= piece.length;
      frames.send(FRAME.DATA, stream, piece);
      caller.body = caller.body.subarray(piece.length);
      if (caller.body.length === 0) {
        caller.body = undefined;
        frames.send(FRAME.END, stream);
      }
    }
  }
}
