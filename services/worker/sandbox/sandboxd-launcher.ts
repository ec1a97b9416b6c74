import { z } from "zod";
import type { VersionSpec } from "#contracts/function";
import { CloisterError } from "#errors/catalogue";
import type { SandboxExit } from "./exit.ts";
import { ProtocolError } from "./flow.ts";
import { FRAME, type FrameSocket, jsonObject } from "./frame-socket.ts";
import { type BundleRef, initOf, type SandboxLauncher, type SandboxShape } from "./launcher.ts";
import { type AssignedSandbox, type BootedSandbox, CreatedSandbox } from "./sandbox.ts";
import { SandboxCore, type SandboxHolder } from "./sandbox-core.ts";
import {
  connectFrames,
  refusal,
  SandboxdControl,
  type SandboxdHello,
  unreachable,
} from "./sandboxd-control.ts";
import type { Snapshot } from "./snapshot-store.ts";

const statSchema = z.object({
  path: z.string().startsWith("/"),
  format: z.enum(["ns", "bytes", "usage_usec"]),
});
const countersSchema = z.object({ path: z.string().startsWith("/"), format: z.literal("vm1") });
const createdSchema = z.object({
  sandbox: z.string().min(1).max(64),
  pid: z.number().int().positive().optional().catch(undefined),
  guestPid: z.number().int().positive().optional().catch(undefined),
  stat: z
    .object({
      cpu: statSchema.optional(),
      memoryPeak: statSchema.optional(),
      counters: countersSchema.optional().catch(undefined),
    })
    .optional()
    .catch(undefined),
});

const snapshotSchema = z.object({
  snapshot: z.string().min(1).max(64),
  bytes: z.number().int().min(0),
});

const CREATE_TIMEOUT_MS = 10_000;
/** A little longer than sandboxd itself waits for a monitor. */
const FREEZE_TIMEOUT_MS = 35_000;
/** Exits heard before the reply of their `create` was read. */
const MAX_EARLY_EXITS = 256;
/** Frames of a runner that is faster than the reply of its `create`: READY, and stray logs. */
const MAX_EARLY_FRAMES = 16;
const EARLY_TYPES: ReadonlySet<number> = new Set([FRAME.READY, FRAME.LOG]);

export interface SandboxdLauncherOptions {
  socketPath: string;
  onUp?: (hello: SandboxdHello) => void;
  onLost?: (error: Error) => void;
  /** For measurements: all that sandboxd said of a sandbox it has made. */
  onMade?: (id: string, reply: Readonly<Record<string, unknown>>) => void;
}

/** Makes sandboxes through sandboxd (runtime/sandboxd/README.md). */
export class SandboxdLauncher implements SandboxLauncher, SandboxHolder {
  readonly #options: SandboxdLauncherOptions;
  readonly #control: SandboxdControl;
  readonly #exits = new Map<string, PromiseWithResolvers<SandboxExit>>();
  readonly #cores = new Map<string, SandboxCore>();
  readonly #earlyExits = new Map<string, SandboxExit>();

  constructor(options: SandboxdLauncherOptions) {
    this.#options = options;
    this.#control = new SandboxdControl(options.socketPath, {
      exit: (sandbox, exit) => this.#onExit(sandbox, exit),
      output: (sandbox, fd, text) => this.#cores.get(sandbox)?.output(fd, text, "raw"),
      up: (hello) => options.onUp?.(hello),
      lost: (error) => this.#onLost(error),
    });
  }

  /** What sandboxd can do; undefined while it cannot be reached. */
  get hello(): SandboxdHello | undefined {
    return this.#control.hello;
  }

  connect(): Promise<SandboxdHello> {
    return this.#control.connect();
  }

  /** Connects in the background, again and again. */
  connectEventually(): void {
    this.#control.connectEventually();
  }

  /** Any request of the control connection, for tools. */
  request(message: { op: string } & Record<string, unknown>): Promise<Record<string, unknown>> {
    return this.#control.request(message);
  }

  close(): void {
    this.#control.close();
    for (const id of [...this.#exits.keys()])
      this.#onExit(id, { reason: "lost", message: "The worker ended its connection to sandboxd" });
  }

  async prepare(shape: SandboxShape, label: string): Promise<BootedSandbox> {
    const created = await this.create(shape, label);
    return (await created.booted()).heldBy(this);
  }

  async launch(
    shape: SandboxShape,
    label: string,
    bundle: BundleRef,
    spec?: VersionSpec,
  ): Promise<AssignedSandbox> {
    const created = await this.create(shape, label, bundle);
    const starting = spec ? created.beginning(initOf(spec)) : created;
    return (await starting.booted()).alreadyAssigned();
  }

  /**
   * The first stage alone: resolves when sandboxd has made the process. A micro-VM may be made `freezable`, or be brought back
   * from a `snapshot`; `warmTurns` of its runner's own code then come before READY.
   */
  async create(
    shape: SandboxShape,
    label: string,
    bundle?: BundleRef,
    frozen: { freezable?: true; snapshot?: string } = {},
    warmTurns = 0,
  ): Promise<CreatedSandbox> {
    if (!this.#control.hello) throw unreachable();
    const began = performance.now();
    const { promise, resolve, reject } = Promise.withResolvers<SandboxCore>();
    const timer = setTimeout(
      () =>
        reject(
          new CloisterError(
            "sandbox_failed",
            `sandboxd made no sandbox in ${CREATE_TIMEOUT_MS} ms`,
          ),
        ),
      CREATE_TIMEOUT_MS,
    );
    let frames: FrameSocket | undefined;
    const early: { type: number; stream: number; payload: Buffer }[] = [];
    try {
      frames = await connectFrames(this.#options.socketPath, {
        frame: (type, stream, payload) => {
          if (type !== FRAME.REPLY) {
            if (early.length >= MAX_EARLY_FRAMES || !EARLY_TYPES.has(type))
              throw new ProtocolError("create is answered by one REPLY");
            early.push({ type, stream, payload: Buffer.from(payload) });
            return;
          }
          let core: SandboxCore;
          try {
            const reply = jsonObject(payload);
            core = this.#adopt(frames as FrameSocket, reply, warmTurns);
            this.#options.onMade?.(core.id, reply);
          } catch (error) {
            reject(error);
            frames?.destroy();
            return;
          }
          resolve(core);
          for (const frame of early) core.link.frame(frame.type, frame.stream, frame.payload);
        },
        closed: () => reject(unreachable()),
      });
      frames.sendJson(FRAME.REQUEST, 1, {
        op: "create",
        kind: shape.kind,
        image: shape.image,
        memoryMb: shape.memoryMb,
        cpuMilli: shape.cpuMilli,
        pids: shape.pids,
        tmpMb: shape.tmpMb,
        label: label.slice(0, 64),
        ...(bundle ? { bundle: bundle.digest } : {}),
        ...frozen,
      });
      const core = await promise;
      core.phases.create_ms = performance.now() - began;
      return new CreatedSandbox(core);
    } catch (error) {
      frames?.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Freezes a micro-VM that was made freezable, which ends with that. */
  async freeze(id: string): Promise<Snapshot> {
    const reply = await this.#control.request({ op: "snapshot", sandbox: id }, FREEZE_TIMEOUT_MS);
    const { snapshot, bytes } = snapshotSchema.parse(reply);
    return { id: snapshot, bytes };
  }

  /** Has sandboxd look at what a sandbox that was brought back has touched so far. Whether another one is to be looked at, too. */
  async learn(id: string): Promise<boolean> {
    const { again } = await this.#control.request({ op: "learn", sandbox: id });
    return again === true;
  }

  /** Has sandboxd keep no more micro-VMs ready than that. */
  async keepReady(ready: number): Promise<void> {
    await this.#control.request({ op: "keep", ready });
  }

  /** Throws a snapshot away. */
  async forget(snapshot: string): Promise<void> {
    await this.#control.request({ op: "forget", snapshot });
  }

  async assign(id: string, bundle: BundleRef, label: string): Promise<void> {
    await this.#control.request({
      op: "assign",
      sandbox: id,
      bundle: bundle.digest,
      label: label.slice(0, 64),
    });
  }

  async reset(id: string, mark: Buffer, guestPid: number): Promise<void> {
    await this.#control.request({
      op: "reset",
      sandbox: id,
      mark: mark.toString("hex"),
      guestPid,
    });
  }

  async kill(id: string): Promise<void> {
    await this.#control.request({ op: "kill", sandbox: id }).catch((error) => {
      if (error instanceof CloisterError && error.extra.sandboxd === "unknown_sandbox") return;
      throw error;
    });
  }

  async trace(id: string, mark: string | undefined): Promise<void> {
    await this.#control.request({
      op: "trace",
      sandbox: id,
      ...(mark === undefined ? {} : { mark }),
    });
  }

  exit(id: string): Promise<SandboxExit> {
    const early = this.#earlyExits.get(id);
    if (early) {
      this.#earlyExits.delete(id);
      return Promise.resolve(early);
    }
    if (!this.#control.hello)
      return Promise.resolve({ reason: "lost", message: "sandboxd ended or restarted" });
    let waiting = this.#exits.get(id);
    if (!waiting) {
      waiting = Promise.withResolvers<SandboxExit>();
      this.#exits.set(id, waiting);
    }
    return waiting.promise;
  }

  /** The REPLY of a create: from here on the connection is the runner's. Throws sandboxd's refusal. */
  #adopt(frames: FrameSocket, reply: Record<string, unknown>, warmTurns: number): SandboxCore {
    if (reply.ok !== true) throw refusal(reply);
    const { sandbox, pid, guestPid, stat } = createdSchema.parse(reply);
    const calls = this.#control.hello?.calls ?? {};
    const core = new SandboxCore(sandbox, frames, this, {
      ...(stat?.cpu ? { cpu: stat.cpu } : {}),
      ...(stat?.memoryPeak ? { memoryPeak: stat.memoryPeak } : {}),
      ...(stat?.counters ? { counters: { path: stat.counters.path, calls } } : {}),
      ...(pid === undefined ? {} : { pid }),
    });
    this.#cores.set(sandbox, core);
    if (guestPid !== undefined) core.bringBack(guestPid, warmTurns);
    void core.ended.then(() => this.#cores.delete(sandbox));
    return core;
  }

  #onExit(sandbox: string, exit: SandboxExit): void {
    const waiting = this.#exits.get(sandbox);
    if (waiting) {
      this.#exits.delete(sandbox);
      waiting.resolve(exit);
      return;
    }
    this.#earlyExits.set(sandbox, exit);
    if (this.#earlyExits.size <= MAX_EARLY_EXITS) return;
    const oldest = this.#earlyExits.keys().next().value;
    if (oldest !== undefined) this.#earlyExits.delete(oldest);
  }

  #onLost(error: Error): void {
    for (const id of [...this.#exits.keys()])
      this.#onExit(id, { reason: "lost", message: "sandboxd ended or restarted" });
    this.#earlyExits.clear();
    this.#options.onLost?.(error);
  }
}
