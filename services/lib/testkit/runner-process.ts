import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Socket } from "node:net";
import { endGroup } from "#embedded/process-life";
import { FRAME, jsonObject } from "#protocol/frames";
import { InvocationLink } from "#protocol/link";
import type { CallHandler, CallStream } from "#protocol/stream";

/** Every wait for a runner ends after this, ms. */
const LIMIT_MS = 30_000;

export interface RunnerOptions {
  /** Program and arguments. */
  argv: string[];
  /** The whole environment of the process. */
  env?: Record<string, string>;
}

/** What an INVOKE frame says; the rest has defaults. */
export interface RunnerRequest {
  kind?: "http" | "event";
  method?: string;
  path?: string;
  headers?: [string, string][];
  deadlineMs?: number;
  /** It is to begin when those before it have ended. */
  behind?: boolean;
  /** The whole body, of at most one window. Absent: none. */
  body?: string | Uint8Array;
}

/** Everything a runner said on one stream. */
export interface RunnerAnswer {
  status: number | undefined;
  headers: [string, string][];
  body: Buffer;
  log: string;
  trailer: Record<string, unknown> | undefined;
  error: Record<string, unknown> | undefined;
}

export interface RunnerExit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** A bare runner process with its socket at descriptor 3: no sandbox around it. For tests, and for benchmarks that show what isolation adds. */
export class RunnerProcess {
  readonly child: ChildProcess;
  readonly link: InvocationLink;
  /** READY's payload. Rejects when the process ends first. */
  readonly ready: Promise<Record<string, unknown>>;
  readonly exit: Promise<RunnerExit>;
  /** What came on descriptors 1 and 2, outside frames. */
  output = "";
  /** LOG of stream 0: output outside invocations. */
  outsideLog = "";
  readonly #ready = Promise.withResolvers<Record<string, unknown>>();
  #initDone = Promise.withResolvers<Record<string, unknown>>();
  #nextId = 1;

  constructor(options: RunnerOptions) {
    const [program = "", ...args] = options.argv;
    this.child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe", "pipe"],
      env: options.env ?? {},
      // What its function left running is ended with it (endGroup): no sandbox does.
      detached: true,
    });
    this.ready = this.#ready.promise;
    this.ready.catch(() => {});
    this.#initDone.promise.catch(() => {});
    for (const fd of [1, 2] as const)
      this.child.stdio[fd]?.on("data", (bytes: Buffer) => {
        this.output += bytes.toString();
      });
    this.exit = once(this.child, "exit").then(([code, signal]) => ({ code, signal }));
    this.exit.catch(() => {});
    this.link = new InvocationLink(this.child.stdio[3] as Socket, {
      control: (type, _stream, payload) => this.#control(type, payload),
      closed: (error) => {
        const gone = error ?? new Error(`The runner is gone. ${this.output}`);
        this.#ready.reject(gone);
        this.#initDone.reject(gone);
      },
    });
  }

  /** Waits for READY, sends INIT and gives INIT_DONE's payload. */
  async init(root: string, fields: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
    await within(this.ready, "READY");
    return this.initEarly(root, fields);
  }

  /** Sends INIT without waiting for READY, as a cold start does. */
  initEarly(root: string, fields: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
    this.link.connection.sendJson(FRAME.INIT, 0, {
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
    return within(this.#initDone.promise, "INIT_DONE");
  }

  /** Opens a stream. The body, if any, and END are the caller's to send. */
  open(request: RunnerRequest, hasBody: boolean, handler: CallHandler): CallStream {
    const path = request.path ?? "/";
    return this.link.call(
      {
        id: `inv_${this.#nextId++}`,
        kind: request.kind ?? "http",
        method: request.method ?? (hasBody ? "POST" : "GET"),
        url: `http://hello.test${path}`,
        path,
        headers: request.headers ?? [["host", "hello.test"]],
        deadlineMs: request.deadlineMs ?? 10_000,
        hasBody,
        ...(request.behind ? { behind: true } : {}),
      },
      handler,
    );
  }

  /** Asks for a call back that waits behind others. */
  recall(stream: number): void {
    this.link.connection.send(FRAME.RECALL, stream);
  }

  /** A whole invocation with a small body. Rejects when the process ends without answering. */
  invoke(request: RunnerRequest = {}): Promise<RunnerAnswer> {
    const answer: RunnerAnswer = {
      status: undefined,
      headers: [],
      body: Buffer.alloc(0),
      log: "",
      trailer: undefined,
      error: undefined,
    };
    const pieces: Buffer[] = [];
    const whole = Promise.withResolvers<RunnerAnswer>();
    const finish = (): void => {
      answer.body = Buffer.concat(pieces);
      whole.resolve(answer);
    };
    const stream = this.open(request, request.body !== undefined, {
      onHead(head) {
        answer.status = head.status as number;
        answer.headers = head.headers as [string, string][];
      },
      onData(bytes) {
        pieces.push(Buffer.from(bytes));
        stream.consumed(bytes.length);
      },
      onLog(_fd, text) {
        answer.log += text.toString();
      },
      onEnd(trailer) {
        answer.trailer = trailer;
        finish();
      },
      onError(error) {
        answer.error = error;
        finish();
      },
      onDown: (error) =>
        whole.reject(error ?? new Error(`The runner ended without an answer. ${this.output}`)),
    });
    if (request.body !== undefined) stream.sendData(Buffer.from(request.body));
    stream.endBody();
    return within(whole.promise, "an answer");
  }

  /** Closes the socket, as a worker that goes away does, and waits for the end of the process. */
  async close(): Promise<RunnerExit> {
    this.link.connection.destroy();
    try {
      return await within(this.exit, "the runner's end");
    } finally {
      endGroup(this.child);
    }
  }

  #control(type: number, payload: Buffer): void {
    if (type === FRAME.READY) this.#ready.resolve(jsonObject(payload));
    else if (type === FRAME.INIT_DONE) this.#initDone.resolve(jsonObject(payload));
    else if (type === FRAME.LOG) this.outsideLog += payload.subarray(1).toString();
    else throw new Error(`An unexpected frame of type ${type}`);
  }
}

export const spawnRunner = (options: RunnerOptions): RunnerProcess => new RunnerProcess(options);

/** Rejects when `promise` takes longer than any wait may. */
export async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`No ${what} within ${LIMIT_MS} ms`)), LIMIT_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
