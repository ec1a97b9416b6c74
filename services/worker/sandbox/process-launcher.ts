import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";
import type { VersionSpec } from "#contracts/function";
import { CloisterError } from "#errors/catalogue";
import type { SandboxExit } from "./exit.ts";
import { FrameSocket } from "./frame-socket.ts";
import { type BundleRef, initOf, type SandboxLauncher, type SandboxShape } from "./launcher.ts";
import { type AssignedSandbox, type BootedSandbox, CreatedSandbox } from "./sandbox.ts";
import { SandboxCore, type SandboxHolder } from "./sandbox-core.ts";
import type { StatFiles } from "./sandbox-meter.ts";

interface Held {
  child: ChildProcess;
  core: SandboxCore;
  exit: Promise<SandboxExit>;
}

/**
 * The bare runner as a child process: no isolation at all. For benchmarks, which show what isolation adds, and for tests of what
 * is around sandboxes. The worker never uses it.
 */
export class ProcessLauncher implements SandboxLauncher, SandboxHolder {
  readonly #argvOf: (shape: SandboxShape) => string[];
  readonly #statOf: (pid: number) => StatFiles;
  readonly #held = new Map<string, Held>();
  #next = 1;

  /** `argvOf` gives the program and arguments that run a shape's runner, `statOf` where the kernel tells what a process has used. */
  constructor(
    argvOf: (shape: SandboxShape) => string[],
    statOf: (pid: number) => StatFiles = () => ({}),
  ) {
    this.#argvOf = argvOf;
    this.#statOf = statOf;
  }

  async prepare(shape: SandboxShape, _label: string): Promise<BootedSandbox> {
    return (await this.create(shape).booted()).heldBy(this);
  }

  async launch(
    shape: SandboxShape,
    label: string,
    bundle: BundleRef,
    spec?: VersionSpec,
  ): Promise<AssignedSandbox> {
    const created = this.create(shape);
    // Its runner finds the files where they are.
    await this.assign(created.id, bundle, label);
    const starting = spec ? created.beginning(initOf(spec)) : created;
    return (await starting.booted()).alreadyAssigned();
  }

  async trace(): Promise<void> {
    throw new CloisterError("trace_unavailable");
  }

  create(shape: SandboxShape): CreatedSandbox {
    const began = performance.now();
    const [program = "", ...args] = this.#argvOf(shape);
    const child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe", "pipe"],
      env: { PATH: "/usr/bin:/bin", HOME: "/tmp", LANG: "C.UTF-8", TZ: "UTC" },
    });
    const id = `process_${this.#next++}`;
    const exit = new Promise<SandboxExit>((resolve) => {
      child.once("error", (error) => resolve({ reason: "setup", message: error.message }));
      child.once("exit", (code, signal) =>
        resolve(
          signal
            ? { reason: "signal", signal }
            : { reason: "exit", ...(code === null ? {} : { code }) },
        ),
      );
    });
    let core: SandboxCore | undefined;
    const held = { child, exit } as Held;
    this.#held.set(id, held);
    const frames = new FrameSocket(child.stdio[3] as Socket, {
      frame() {},
      closed() {},
    });
    core = new SandboxCore(id, frames, this, child.pid ? this.#statOf(child.pid) : {});
    held.core = core;
    for (const fd of [1, 2] as const)
      child.stdio[fd]?.on("data", (text: Buffer) => core.output(fd, text.toString("utf8"), "raw"));
    core.phases.create_ms = performance.now() - began;
    void exit.then(() => this.#held.delete(id));
    return new CreatedSandbox(core);
  }

  async assign(id: string, bundle: BundleRef, _label: string): Promise<void> {
    const held = this.#held.get(id);
    if (!held) throw new CloisterError("sandbox_failed", "The process has ended");
    held.core.root = bundle.path;
  }

  async kill(id: string): Promise<void> {
    const held = this.#held.get(id);
    if (!held) return;
    held.child.kill("SIGKILL");
    await held.exit;
  }

  exit(id: string): Promise<SandboxExit> {
    return this.#held.get(id)?.exit ?? Promise.resolve({ reason: "lost" });
  }
}
