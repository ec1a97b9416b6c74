import { connect } from "node:net";
import { z } from "zod";
import { CloisterError, type ErrorCode } from "#errors/catalogue";
import type { SandboxExit } from "./exit.ts";
import { ProtocolError } from "./flow.ts";
import { FRAME, FrameSocket, jsonObject } from "./frame-socket.ts";

const helloSchema = z.object({
  version: z.union([z.string(), z.number()]).transform(String),
  instance: z.string(),
  cgroup: z.string(),
  images: z.record(z.string(), z.string()),
  kinds: z.array(z.string()),
  /** Names of the system calls of micro-VMs by number. */
  calls: z.record(z.string(), z.string().max(64)).optional(),
  /** Of the micro-VMs that it keeps ready. */
  ready: z
    .object({ most: z.number().int().min(0), memoryMb: z.number().int().min(1) })
    .optional()
    .catch(undefined),
  landlockAbi: z.number().nullish(),
  pid: z.number(),
});
/** What sandboxd says of itself and its host. */
export type SandboxdHello = z.infer<typeof helloSchema>;

const exitSchema = z.object({
  sandbox: z.string(),
  reason: z.enum(["exit", "signal", "oom", "killed", "setup"]),
  code: z.number().nullish(),
  signal: z.union([z.string(), z.number()]).nullish(),
  memoryPeakBytes: z.number().nullish(),
  message: z.string().nullish(),
});

const outputSchema = z.object({
  sandbox: z.string(),
  fd: z.union([z.literal(1), z.literal(2)]),
  text: z.string(),
});

export interface ControlEvents {
  exit(sandbox: string, exit: SandboxExit): void;
  output(sandbox: string, fd: 1 | 2, text: string): void;
  /** Connected, also again after a loss. */
  up(hello: SandboxdHello): void;
  /** The connection is lost; all sandboxes of that sandboxd are gone or about to be. */
  lost(error: Error): void;
}

/** Requests that take longer fail, ms. `kill` waits for processes to be gone. */
const REQUEST_TIMEOUT_MS = 10_000;
const MAX_RETRY_MS = 2000;
const MAX_STREAM = 0xffff_ffff;

interface Pending {
  resolve: (reply: Record<string, unknown>) => void;
  reject: (error: Error) => void;
  timer: NodeJS.Timeout;
}

/** The control connection to sandboxd: requests with deadlines, events, and a new connection after each loss. */
export class SandboxdControl {
  readonly #path: string;
  readonly #events: ControlEvents;
  readonly #pending = new Map<number, Pending>();
  #frames: FrameSocket | undefined;
  #next = 1;
  #hello: SandboxdHello | undefined;
  #closed = false;
  #retryTimer: NodeJS.Timeout | undefined;
  #attempt = 0;

  constructor(path: string, events: ControlEvents) {
    this.#path = path;
    this.#events = events;
  }

  /** What sandboxd said of itself; undefined while it cannot be reached. */
  get hello(): SandboxdHello | undefined {
    return this.#hello;
  }

  /** Connects and says hello once; later losses are mended in the background. */
  async connect(): Promise<SandboxdHello> {
    const hello = await this.#open();
    return hello;
  }

  /** Keeps trying to connect; for a worker that starts before its sandboxd. */
  connectEventually(): void {
    this.#open().catch((error: Error) => this.#retry(error));
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#retryTimer);
    this.#frames?.destroy();
  }

  /** Sends a request; rejects with a CloisterError when sandboxd says no, is not there or does not answer in time. */
  request(
    message: { op: string } & Record<string, unknown>,
    timeoutMs = REQUEST_TIMEOUT_MS,
  ): Promise<Record<string, unknown>> {
    const frames = this.#frames;
    if (!frames) return Promise.reject(unreachable());
    const id = this.#next;
    this.#next = this.#next >= MAX_STREAM ? 1 : this.#next + 1;
    const { promise, resolve, reject } = Promise.withResolvers<Record<string, unknown>>();
    const timer = setTimeout(() => {
      this.#pending.delete(id);
      reject(
        new CloisterError(
          "sandbox_failed",
          `sandboxd did not answer ${message.op} in ${timeoutMs} ms`,
        ),
      );
    }, timeoutMs);
    this.#pending.set(id, { resolve, reject, timer });
    frames.sendJson(FRAME.REQUEST, id, message);
    return promise;
  }

  async #open(): Promise<SandboxdHello> {
    const frames = await connectFrames(this.#path, {
      frame: (type, stream, payload) => this.#frame(type, stream, payload),
      closed: (error) => this.#lost(error ?? new Error("sandboxd closed the connection")),
    });
    this.#frames = frames;
    const hello = helloSchema.safeParse(await this.request({ op: "hello" }));
    if (!hello.success) {
      frames.destroy();
      throw new CloisterError(
        "sandbox_failed",
        "sandboxd's hello is not understood; are versions equal?",
      );
    }
    this.#attempt = 0;
    this.#hello = hello.data;
    this.#events.up(hello.data);
    return hello.data;
  }

  #lost(error: Error): void {
    const wasUp = this.#hello !== undefined;
    this.#frames = undefined;
    this.#hello = undefined;
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(unreachable());
    }
    this.#pending.clear();
    if (this.#closed) return;
    if (wasUp) {
      this.#events.lost(error);
      this.#retry(error);
    }
  }

  #retry(_error: Error): void {
    if (this.#closed) return;
    const waitMs = Math.min(MAX_RETRY_MS, 50 * 2 ** Math.min(this.#attempt++, 6));
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.connectEventually(), waitMs);
  }

  #frame(type: number, stream: number, payload: Buffer): void {
    if (type === FRAME.EVENT) {
      this.#event(jsonObject(payload));
      return;
    }
    if (type !== FRAME.REPLY)
      throw new ProtocolError(`Frame type ${type} does not come from sandboxd`);
    const pending = this.#pending.get(stream);
    if (!pending) return;
    this.#pending.delete(stream);
    clearTimeout(pending.timer);
    const reply = jsonObject(payload);
    if (reply.ok === true) pending.resolve(reply);
    else pending.reject(refusal(reply));
  }

  #event(event: Record<string, unknown>): void {
    const kind = event.event ?? event.type ?? event.op;
    if (kind === "exit") {
      const parsed = exitSchema.safeParse(event);
      if (!parsed.success) return;
      const { sandbox, reason, code, signal, memoryPeakBytes, message } = parsed.data;
      this.#events.exit(sandbox, {
        reason,
        ...(code == null ? {} : { code }),
        ...(signal == null ? {} : { signal: String(signal) }),
        ...(memoryPeakBytes == null ? {} : { memoryPeakBytes }),
        ...(message == null ? {} : { message }),
      });
    } else if (kind === "output") {
      const parsed = outputSchema.safeParse(event);
      if (parsed.success)
        this.#events.output(parsed.data.sandbox, parsed.data.fd, parsed.data.text);
    }
  }
}

/** Connects a Unix socket; rejects when nobody listens. */
export async function connectFrames(
  path: string,
  receiver: ConstructorParameters<typeof FrameSocket>[1],
): Promise<FrameSocket> {
  const socket = connect({ path });
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", () => reject(unreachable()));
  });
  socket.removeAllListeners("connect");
  socket.removeAllListeners("error");
  return new FrameSocket(socket, receiver);
}

export const unreachable = (): CloisterError =>
  new CloisterError("sandbox_failed", "sandboxd cannot be reached; it may be starting again");

const CODES: Record<string, ErrorCode> = {
  isolation_unavailable: "isolation_unavailable",
  limit_unavailable: "isolation_unavailable",
  too_many_sandboxes: "capacity_exhausted",
  draining: "draining",
};

/** sandboxd's "no", as an error of the catalogue. */
export function refusal(reply: Record<string, unknown>): CloisterError {
  const code = typeof reply.code === "string" ? reply.code : "unknown";
  const message = typeof reply.message === "string" ? reply.message.slice(0, 1000) : code;
  return new CloisterError(CODES[code] ?? "sandbox_failed", message, { sandboxd: code });
}
