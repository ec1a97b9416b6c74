import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { setTimeout as after } from "node:timers/promises";
import { endGroup } from "#embedded/process-life";

/** Frame types of runtime/protocol/README.md that pass between worker and runner. */
export const FRAME = {
  init: 0x01,
  invoke: 0x02,
  data: 0x03,
  end: 0x04,
  cancel: 0x05,
  window: 0x06,
  restored: 0x07,
  ready: 0x10,
  initDone: 0x11,
  head: 0x12,
  error: 0x13,
  log: 0x14,
} as const;

export interface Frame {
  type: number;
  stream: number;
  payload: Buffer;
}

/** Everything a runner said on one stream. */
export interface Answer {
  head: { status: number; headers: [string, string][] } | undefined;
  body: Buffer;
  log: string;
  error: { type: string; message: string; stack: string; code: string } | undefined;
  trailer: { handlerMs: number } | undefined;
}

/** What an INVOKE frame says; the rest has defaults. */
export interface Request {
  kind?: "http" | "event";
  method?: string;
  path?: string;
  headers?: [string, string][];
  body?: string | Uint8Array;
  deadlineMs?: number;
}

const LIMIT_MS = 20_000;
const PIECE_BYTES = 65_536;
const WINDOW_BYTES = 262_144;

/** A runner under test: a real process with a real socket at descriptor 3. Every wait ends within 20 s. */
export class Conversation {
  readonly child: ChildProcess;
  readonly #socket: Duplex;
  readonly #waiting: { wants: (frame: Frame) => boolean; resolve: (frame: Frame) => void }[] = [];
  readonly #frames: Frame[] = [];
  readonly exit: Promise<{ code: number | null; signal: string | null }>;
  #held: Buffer = Buffer.alloc(0);
  #nextStream = 1;
  /** What the runner wrote to descriptors 1 and 2, outside frames. */
  output = "";

  constructor(argv: string[], env: Record<string, string> = {}) {
    const [program = "", ...args] = argv;
    this.child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe", "pipe"],
      env,
      // What its function left running is ended with it (endGroup): no sandbox does.
      detached: true,
    });
    this.#socket = this.child.stdio[3] as Duplex;
    this.#socket.on("data", (bytes: Buffer) => this.#receive(bytes));
    this.#socket.on("error", () => {});
    for (const fd of [1, 2] as const) {
      this.child.stdio[fd]?.on("data", (bytes: Buffer) => {
        this.output += bytes.toString();
      });
    }
    this.exit = once(this.child, "exit").then(([code, signal]) => ({ code, signal }));
  }

  /** Sends one frame; objects as JSON. */
  send(type: number, stream: number, payload: Uint8Array | object = new Uint8Array()): void {
    const body =
      payload instanceof Uint8Array ? payload : Buffer.from(JSON.stringify(payload), "utf8");
    const header = Buffer.alloc(12);
    header.writeUInt32LE(body.length, 0);
    header.writeUInt32LE(stream, 4);
    header.writeUInt8(type, 8);
    this.#socket.write(Buffer.concat([header, body]));
  }

  /** Sends bytes as they are. */
  sendRaw(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** The next frame of one of the types, on the stream if given. Frames of other streams are kept. */
  async next(types: number[], stream?: number): Promise<Frame> {
    const wants = (frame: Frame) =>
      types.includes(frame.type) && (stream === undefined || frame.stream === stream);
    const at = this.#frames.findIndex(wants);
    const there = this.#frames[at];
    if (there) {
      this.#frames.splice(at, 1);
      return there;
    }
    const stop = new AbortController();
    const found = new Promise<Frame>((resolve) => this.#waiting.push({ wants, resolve }));
    const late = after(LIMIT_MS, undefined, { signal: stop.signal }).then(() => {
      throw new Error(`No frame of type ${types} within ${LIMIT_MS} ms. Output: ${this.output}`);
    });
    late.catch(() => {});
    const gone = this.exit.then(async ({ code, signal }) => {
      await after(200, undefined, { signal: stop.signal });
      throw new Error(`The runner ended (${code ?? signal}). Output: ${this.output}`);
    });
    gone.catch(() => {});
    try {
      return await Promise.race([found, late, gone]);
    } finally {
      stop.abort();
    }
  }

  /** Waits for READY, sends INIT and gives INIT_DONE. */
  async init(
    root: string,
    fields: Record<string, unknown> = {},
  ): Promise<{
    ok: boolean;
    error?: { type: string; message: string; stack: string; code: string };
  }> {
    await this.next([FRAME.ready], 0);
    this.send(FRAME.init, 0, {
      function: "hello",
      version: 3,
      root,
      env: {},
      memoryMb: 256,
      timeoutMs: 10_000,
      seed: Buffer.alloc(32).toString("base64"),
      nowMs: Date.now(),
      ...fields,
    });
    const done = await this.next([FRAME.initDone], 0);
    return JSON.parse(done.payload.toString());
  }

  /** Opens a stream with its head and gives its number; `hasBody` false still needs an END. */
  open(request: Request = {}): number {
    const stream = this.#nextStream++;
    const path = request.path ?? "/";
    this.send(FRAME.invoke, stream, {
      id: `inv_${stream}`,
      kind: request.kind ?? "event",
      method: request.method ?? "POST",
      url: `http://hello.test${path}`,
      path,
      headers: request.headers ?? [["host", "hello.test"]],
      deadlineMs: request.deadlineMs ?? 10_000,
      hasBody: request.body !== undefined,
    });
    return stream;
  }

  /** A whole invocation: sends the body as the window allows, reads the answer to its end. */
  async invoke(request: Request = {}): Promise<Answer> {
    const stream = this.open(request);
    const answer = this.answer(stream);
    // A runner may answer without reading its request to the end.
    await this.sendBody(stream, Buffer.from(request.body ?? ""), answer);
    return answer;
  }

  /** Sends a body and END, within the window; gives up when `over` settles before there is window. */
  async sendBody(stream: number, body: Buffer, over?: Promise<unknown>): Promise<void> {
    let windowBytes = WINDOW_BYTES;
    for (let at = 0; at < body.length; ) {
      const piece = body.subarray(at, at + Math.min(PIECE_BYTES, windowBytes));
      if (piece.length === 0) {
        const granted = this.next([FRAME.window], stream);
        const grant = await Promise.race([granted, over?.then(() => undefined) ?? granted]);
        if (!grant) {
          granted.catch(() => {});
          return;
        }
        windowBytes += grant.payload.readUInt32LE(0);
        continue;
      }
      this.send(FRAME.data, stream, piece);
      at += piece.length;
      windowBytes -= piece.length;
    }
    this.send(FRAME.end, stream);
  }

  /** Reads a stream to END or ERROR and grants window for what it reads. */
  async answer(stream: number): Promise<Answer> {
    const answer: Answer = {
      head: undefined,
      body: Buffer.alloc(0),
      log: "",
      error: undefined,
      trailer: undefined,
    };
    const pieces: Buffer[] = [];
    while (!answer.error && !answer.trailer) {
      const { head, data, end, error, log } = FRAME;
      const frame = await this.next([head, data, end, error, log], stream);
      const { payload } = frame;
      if (frame.type === head) answer.head = JSON.parse(payload.toString());
      if (frame.type === error) answer.error = JSON.parse(payload.toString());
      if (frame.type === end) answer.trailer = JSON.parse(payload.toString());
      if (frame.type === log) answer.log += payload.subarray(1).toString();
      if (frame.type === data) {
        pieces.push(payload);
        const grant = Buffer.alloc(4);
        grant.writeUInt32LE(payload.length);
        this.send(FRAME.window, stream, grant);
      }
    }
    answer.body = Buffer.concat(pieces);
    return answer;
  }

  /** Closes the socket, as a worker that goes away does, and waits for the end. */
  async close(): Promise<{ code: number | null; signal: string | null }> {
    this.#socket.destroy();
    const stop = new AbortController();
    const late = after(LIMIT_MS, undefined, { signal: stop.signal }).then(() => {
      throw new Error("The runner did not end when its socket closed.");
    });
    try {
      return await Promise.race([this.exit, late]);
    } finally {
      stop.abort();
      late.catch(() => {});
      endGroup(this.child);
    }
  }

  #receive(bytes: Buffer): void {
    this.#held = Buffer.concat([this.#held, bytes]);
    while (this.#held.length >= 12) {
      const length = this.#held.readUInt32LE(0);
      if (this.#held.length < 12 + length) return;
      const frame = {
        stream: this.#held.readUInt32LE(4),
        type: this.#held.readUInt8(8),
        payload: this.#held.subarray(12, 12 + length),
      };
      this.#held = this.#held.subarray(12 + length);
      const at = this.#waiting.findIndex((waiter) => waiter.wants(frame));
      const waiter = this.#waiting[at];
      if (waiter) {
        this.#waiting.splice(at, 1);
        waiter.resolve(frame);
      } else {
        this.#frames.push(frame);
      }
    }
  }
}
