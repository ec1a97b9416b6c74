import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FRAME, FrameSocket, jsonObject } from "../sandbox/frame-socket.ts";

const RUNNER = join(import.meta.dirname, "../../../runtime/runners/python/runner.py");

interface Held {
  child: ChildProcess;
  bundle: string | undefined;
  /** What it was told to load. */
  init?: object;
  /** Frames for one that is being brought back. */
  waiting?: [type: number, stream: number, payload: Buffer][];
}

/**
 * The socket side of sandboxd (runtime/sandboxd/README.md) without sandboxes: real runner processes, with the frames passed on. For what the client does
 * when sandboxd refuses, is slow, tells odd things or dies; isolation is tested where it is made.
 */
export class SandboxdStandIn {
  readonly path: string;
  readonly #folder: string;
  readonly #bundles: string | undefined;
  readonly #invoked = Promise.withResolvers<void>();
  readonly held = new Map<string, Held>();
  /** What snapshots are of: a runner is brought back as it was by doing again what it was asked to do. */
  readonly frozen = new Map<string, { bundle: string | undefined; init: object | undefined }>();
  kinds = ["container"];
  /** A sandbox that is brought back goes down when it hears so. */
  neverBack = false;
  readonly #controls = new Set<FrameSocket>();
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #next = 1;
  /** Answers a request instead of the stand-in; undefined lets it. */
  answer: (request: Record<string, unknown>) => object | "silence" | undefined = () => undefined;
  /** The reply of a create goes out only after the runner's first frame, as it may when attaching to a cgroup takes longer than the boot. */
  lateReply = false;
  /** Changes an exit event before it is sent. */
  exit: (event: Record<string, unknown>) => Record<string, unknown> = (event) => event;

  /** `bundles` is bound at /fn by the real one; here the runner is told to look there, by INIT's root. */
  constructor(bundles?: string) {
    this.#bundles = bundles;
    this.#folder = mkdtempSync(join(tmpdir(), "cloister-sandboxd-"));
    this.path = join(this.#folder, "sandboxd.sock");
  }

  async listen(): Promise<void> {
    this.#server = createServer((socket) => this.#accept(socket));
    this.#server.listen(this.path);
    await once(this.#server, "listening");
  }

  /** As kill -9 would: every connection and sandbox is gone at once. */
  async die(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    const closed = new Promise((resolve) => server?.close(resolve));
    for (const { child } of this.held.values()) child.kill("SIGKILL");
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async close(): Promise<void> {
    await this.die();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    let runner: { id: string; frames: FrameSocket } | undefined;
    const frames: FrameSocket = new FrameSocket(socket, {
      frame: (type, stream, payload) => {
        if (runner) {
          this.#pass(runner, type, stream, payload);
          return;
        }
        const request = jsonObject(payload);
        const { snapshot } = request;
        const unknown = snapshot !== undefined && !this.frozen.has(String(snapshot));
        const instead =
          this.answer(request) ??
          (request.op === "create" && unknown
            ? { ok: false, code: "unknown_snapshot", message: `There is no ${snapshot}` }
            : undefined);
        if (instead === "silence") return;
        if (instead) frames.sendJson(FRAME.REPLY, stream, instead);
        else if (request.op === "create") runner = this.#create(frames, request, stream);
        else {
          this.#controls.add(frames);
          const reply = this.#control(request, frames, stream);
          if (reply) frames.sendJson(FRAME.REPLY, stream, reply);
        }
      },
      closed: () => {
        this.#controls.delete(frames);
        runner?.frames.destroy();
      },
    });
  }

  /** Resolves when an invocation has reached a runner. */
  busy(): Promise<void> {
    return this.#invoked.promise;
  }

  #pass(
    runner: { id: string; frames: FrameSocket },
    type: number,
    stream: number,
    payload: Buffer,
  ): void {
    const bundle = this.held.get(runner.id)?.bundle;
    const held = this.held.get(runner.id);
    if (type === FRAME.INIT && held) {
      const root = this.#bundles && bundle ? { root: join(this.#bundles, bundle) } : {};
      held.init = { ...jsonObject(payload), ...root };
      runner.frames.sendJson(type, stream, held.init);
      return;
    }
    if (type === FRAME.RESTORED && this.neverBack) {
      held?.child.kill("SIGKILL");
      return;
    }
    if (held?.waiting) {
      held.waiting.push([type, stream, Buffer.from(payload)]);
      return;
    }
    if (type === FRAME.INVOKE) this.#invoked.resolve();
    runner.frames.send(type, stream, payload);
  }

  #create(
    frames: FrameSocket,
    request: Record<string, unknown>,
    stream: number,
  ): { id: string; frames: FrameSocket } {
    const id = `sb_${String(this.#next++).padStart(16, "0")}`;
    const argv = ["-I", "-S", "-B", "-X", "utf8", RUNNER];
    const child = spawn("/usr/bin/python3", argv, { stdio: ["ignore", "pipe", "pipe", "pipe"] });
    const bundle = typeof request.bundle === "string" ? request.bundle : undefined;
    const past = this.frozen.get(String(request.snapshot));
    const held: Held = { child, bundle, ...(past?.init ? { init: past.init, waiting: [] } : {}) };
    this.held.set(id, held);
    let replied = false;
    const reply = (): void => {
      if (replied) return;
      replied = true;
      frames.sendJson(FRAME.REPLY, stream, {
        ok: true,
        sandbox: id,
        pid: child.pid,
        stat: {},
        ...(past ? { guestPid: 4711 + this.#next } : {}),
      });
    };
    if (!this.lateReply) reply();
    const runner = new FrameSocket(child.stdio[3] as Socket, {
      frame: (type, on, payload) => {
        if (held.waiting) {
          this.#bringBack(held, runner, type);
          return;
        }
        frames.send(type, on, payload);
        reply();
      },
      closed() {},
    });
    for (const fd of [1, 2] as const)
      child.stdio[fd]?.on("data", (text: Buffer) =>
        this.#tell({ event: "output", sandbox: id, fd, text: text.toString() }),
      );
    child.on("close", (code, signal) => {
      this.held.delete(id);
      const why = signal ? { reason: "signal", signal } : { reason: "exit", code };
      this.#tell(this.exit({ event: "exit", sandbox: id, ...why }));
      frames.destroy();
    });
    return { id, frames: runner };
  }

  /** What the runner says until it is where the frozen one was is nobody's; what it was told meanwhile comes then. */
  #bringBack(held: Held, runner: FrameSocket, type: number): void {
    if (type === FRAME.READY) runner.sendJson(FRAME.INIT, 0, held.init as object);
    if (type !== FRAME.INIT_DONE) return;
    const waiting = held.waiting ?? [];
    delete held.waiting;
    for (const frame of waiting) runner.send(...frame);
  }

  #control(
    request: Record<string, unknown>,
    frames: FrameSocket,
    stream: number,
  ): object | undefined {
    if (request.op === "hello")
      return {
        ok: true,
        version: "0",
        instance: "00000000",
        cgroup: "v2",
        images: { python3: "0".repeat(64) },
        kinds: this.kinds,
        landlockAbi: 6,
        pid: process.pid,
      };
    if (request.op === "forget") {
      this.frozen.delete(String(request.snapshot));
      return { ok: true };
    }
    const held = this.held.get(String(request.sandbox));
    if (!held) return { ok: false, code: "unknown_sandbox", message: "There is no such sandbox" };
    if (request.op === "kill") {
      held.child.once("close", () => frames.sendJson(FRAME.REPLY, stream, { ok: true }));
      held.child.kill("SIGKILL");
      return undefined;
    }
    if (request.op === "snapshot") {
      const snapshot = `snap_${String(this.#next++).padStart(16, "0")}`;
      this.frozen.set(snapshot, { bundle: held.bundle, init: held.init });
      held.child.kill("SIGKILL");
      return { ok: true, snapshot, bytes: 1000 };
    }
    if (request.op === "assign") held.bundle = String(request.bundle);
    return { ok: true };
  }

  #tell(event: Record<string, unknown>): void {
    for (const control of this.#controls) control.sendJson(FRAME.EVENT, 0, event);
  }
}
