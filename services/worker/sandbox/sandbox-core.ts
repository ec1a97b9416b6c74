import { randomBytes } from "node:crypto";
import { CloisterError } from "#errors/catalogue";
import { bounded } from "./bounded.ts";
import { exitError, type SandboxExit } from "./exit.ts";
import type { FrameSocket } from "./frame-socket.ts";
import type { BundleRef, InitMessage } from "./loaded-function.ts";
import { RunnerLink } from "./runner-link.ts";
import { SandboxMeter, type StatFiles, type WorkReading } from "./sandbox-meter.ts";
import { TraceFilter } from "./trace-filter.ts";

/** Phases of a start, ms. Absent: did not happen. */
export interface StartPhases {
  create_ms?: number;
  runtime_ms?: number;
  reset_ms?: number;
  /** From its process to a function that is back, and the part of it in which the runner and hooks renewed it. */
  restore_ms?: number;
  renew_ms?: number;
  assign_ms?: number;
  init_ms?: number;
}

/** What holds a sandbox from outside: sandboxd, or the operating system for a bare process. */
export interface SandboxHolder {
  assign(id: string, bundle: BundleRef, label: string): Promise<void>;
  /**
   * Puts a restored micro-VM back to its snapshot; its runner is to see another process id. `mark` comes on its connection when that is
   * done, and after it nothing of its former life. When it rejects the sandbox ends.
   */
  reset?(id: string, mark: Buffer, guestPid: number): Promise<void>;
  /** Resolves when the last process is gone. */
  kill(id: string): Promise<void>;
  /** Starts the trace of a micro-VM's system calls, each line marked so, or ends it. */
  trace(id: string, mark: string | undefined): Promise<void>;
  /** Resolves with why it ended, once its processes are gone. Never rejects. */
  exit(id: string): Promise<SandboxExit>;
}

/** Hears what a sandbox says outside answers. */
export interface SandboxObserver {
  /** Output in LOG frames that belongs to no invocation (`frames`), or raw output of descriptors 1 and 2 (`raw`). */
  output(fd: 1 | 2, text: string, source: "frames" | "raw"): void;
}

export const BOOT_TIMEOUT_MS = 10_000;
/** Process ids of runners after a reset: the upper half of those that Linux gives. sandboxd counts up from below for new sandboxes. */
const RESET_PIDS = 16_384;
let resetPids = 0;
/** No function guesses that many. */
const MARK_BYTES = 32;
/** Coming back with a function; its hooks have 10 s of that (runtime/protocol/README.md), ms. */
const RETURN_TIMEOUT_MS = 12_000;
/** sandboxd says why a sandbox ended soon after its connection closed; longer than this nobody waits, ms. */
export const EXIT_WAIT_MS = 2000;
/** The last lines of a trace are waited for; a thread that computes in one call for longer is cut off. */
const TRACE_TRIES = 100;
const TRACE_PAUSE_MS = 5;
const OUTPUT_TAIL_CHARS = 4096;
const OUTPUT_HELD_CHARS = 65_536;

/** The running thing behind the life-cycle types (sandbox.ts). Only those and the launchers see it. */
export class SandboxCore {
  readonly id: string;
  readonly meter: SandboxMeter;
  phases: StartPhases = {};
  /** It was brought back from a snapshot. */
  restored = false;
  /** Its function came with it. */
  loaded = false;
  /** INIT_DONE's payload, of a function whose INIT was sent while the runner was still to be ready. */
  beginning: Promise<Record<string, unknown>> | undefined;
  /** When the runner said READY. */
  readyAtMs: number | undefined;
  /** Hears of the first answer. */
  firstAnswered: (() => void) | undefined;
  /** Hears if it goes down by itself before it was back. */
  neverBack: ((error: Error) => void) | undefined;
  /** Resolves when a restored function says that it cannot come back. */
  #refused: Promise<Record<string, unknown>> | undefined;
  #madeAtMs = performance.now();
  /** Where the runner finds the function's files. */
  root = "/fn";
  /** The connection is gone: nothing can be asked of it any more. */
  readonly down: Promise<void>;
  /** Its processes are gone. */
  readonly ended: Promise<SandboxExit>;
  readonly #holder: SandboxHolder;
  readonly #socket: FrameSocket;
  #link: RunnerLink;
  /** The holder's word on the last reset. */
  #told: Promise<void> = Promise.resolve();
  readonly #down = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<SandboxExit>();
  #alive = true;
  #ending: Promise<void> | undefined;
  #tail = "";
  #held: { fd: 1 | 2; text: string; source: "frames" | "raw" }[] = [];
  #heldChars = 0;
  #observer: SandboxObserver | undefined;
  #trace: TraceFilter | undefined;

  constructor(id: string, socket: FrameSocket, holder: SandboxHolder, stat: StatFiles) {
    this.id = id;
    this.#holder = holder;
    this.meter = new SandboxMeter(stat);
    this.down = this.#down.promise;
    this.ended = this.#ended.promise;
    this.#socket = socket;
    this.#link = this.#newLink();
    void holder.exit(id).then((exit) => this.#finish(exit));
  }

  /** The conversation with its runner; another one after a reset. */
  get link(): RunnerLink {
    return this.#link;
  }

  #newLink(): RunnerLink {
    const link = new RunnerLink(this.#socket, {
      ready: (message) => this.#onReady(message),
      answered: () => this.#onAnswered(),
      strayLog: (fd, text) => this.output(fd, text.toString("utf8"), "frames"),
      down: (error) => void this.#onDown(error),
    });
    this.#socket.handOver(link);
    return link;
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Sends INIT; resolves with INIT_DONE's payload, rejects when the runner goes away first. */
  sendInit(message: InitMessage): Promise<Record<string, unknown>> {
    const seed = randomBytes(32).toString("base64");
    return this.link.init({ ...message, root: this.root, seed, nowMs: Date.now() });
  }

  /** Whether it can be put back to the snapshot it was brought back from. */
  get resettable(): boolean {
    return this.restored && this.#holder.reset !== undefined;
  }

  /**
   * Puts it back to its snapshot, and tells its runner; a function that came with that may be asked at once. Whatever it did, left running or still
   * says is gone. Rejects when that cannot be done for certain; the sandbox is ended then.
   */
  async reset(): Promise<void> {
    const began = performance.now();
    try {
      const { reset } = this.#holder;
      if (!reset || !this.restored || !this.#alive || this.#link.streams > 0)
        throw new Error("it serves an invocation, or was not brought back");
      // What is still in this process would be heard by the new life.
      if (!this.#socket.flush()) throw new Error("its runner has not read what was sent");
      const mark = randomBytes(MARK_BYTES);
      const marked = Promise.withResolvers<"marked">();
      this.#socket.skipTo(mark, () => marked.resolve("marked"));
      this.#link = this.#newLink();
      const pid = RESET_PIDS + (resetPids++ % RESET_PIDS);
      const told = this.#told.then(() => reset.call(this.#holder, this.id, mark, pid));
      this.#told = told;
      // The mark says it all, and is here before the holder's word.
      const marks = [marked.promise, told.then(() => marked.promise)];
      const first = await Promise.race([...marks, this.down]);
      if (first !== "marked") throw new Error("its runner is gone");
      told.catch(() => this.end());
      this.#tail = "";
      this.readyAtMs = undefined;
      this.#madeAtMs = performance.now();
      this.bringBack(pid);
      this.phases = {};
      if (this.loaded) this.returning(() => {});
      else if (
        (await bounded(
          this.#link.ready.then(() => true),
          BOOT_TIMEOUT_MS,
        )) !== true
      )
        throw new Error("its runner did not come back");
      this.phases.reset_ms = performance.now() - began;
    } catch (error) {
      void this.end();
      const why = error instanceof Error ? error.message : String(error);
      throw new CloisterError("sandbox_failed", `The sandbox could not be reset: ${why}`);
    }
  }

  get outputTail(): string {
    return this.#tail;
  }

  output(fd: 1 | 2, said: string, source: "frames" | "raw"): void {
    const text = source === "raw" && fd === 2 && this.#trace ? this.#trace.pass(said) : said;
    if (text === "" && said !== "") return;
    if (source === "raw") this.#tail = (this.#tail + text).slice(-OUTPUT_TAIL_CHARS);
    if (this.#observer) this.#observer.output(fd, text, source);
    else if (this.#heldChars + text.length <= OUTPUT_HELD_CHARS) {
      this.#held.push({ fd, text, source });
      this.#heldChars += text.length;
    }
  }

  /** Tells the runner that it was brought back, as the process `pid`, and how many turns of its own code are to come before READY. */
  bringBack(pid: number, warmTurns = 0): void {
    this.restored = true;
    const seed = randomBytes(32).toString("base64");
    const turns = warmTurns > 0 ? { warmTurns } : {};
    this.#refused = this.link.restored({ seed, nowMs: Date.now(), pid, ...turns });
    this.#refused.catch(() => {});
  }

  /** It brings its function with it, and may be asked before it is back. `broken` hears if that is never. */
  returning(broken: (error: Error) => void): void {
    this.loaded = true;
    this.neverBack = broken;
    const back = this.link.ready.then(
      () => true,
      () => true,
    );
    void bounded(back, RETURN_TIMEOUT_MS).then((settled) => {
      if (settled || this.#ending) return;
      this.neverBack?.(new Error(`It was not back within ${RETURN_TIMEOUT_MS} ms`));
      void this.end();
    });
    this.#refused?.then(
      ({ error }) => {
        this.neverBack = undefined;
        const fault = (typeof error === "object" && error !== null ? error : {}) as object;
        this.link.failAll({ ...fault, exiting: true });
        void this.end();
      },
      () => {},
    );
  }

  #onAnswered(): void {
    const hear = this.firstAnswered;
    this.firstAnswered = undefined;
    hear?.();
  }

  #onReady(message: Record<string, unknown>): void {
    this.readyAtMs = performance.now();
    this.neverBack = undefined;
    if (!this.loaded) return;
    this.phases.restore_ms = this.readyAtMs - this.#madeAtMs;
    if (typeof message.renewMs === "number") this.phases.renew_ms = message.renewMs;
    this.meter.findRunner();
  }

  /** Has each system call told as a line, once it resolves. One trace at a time. */
  async startTrace(line: (text: string) => void): Promise<void> {
    this.#trace ??= new TraceFilter();
    const mark = randomBytes(8).toString("hex");
    this.#trace.begin(mark, line);
    try {
      await this.#holder.trace(this.id, mark);
    } catch (error) {
      this.#trace.end();
      throw error;
    }
  }

  /** Resolves when all that was traced has been told. Never rejects. */
  async endTrace(): Promise<void> {
    // An answer is here before the monitor has written the line about the call that sent it.
    for (let tries = 0; this.meter.isTracing() && tries < TRACE_TRIES; tries++)
      await new Promise((resolve) => setTimeout(resolve, TRACE_PAUSE_MS));
    // A sandbox that is gone has told everything.
    await this.#holder.trace(this.id, undefined).catch(() => {});
    this.#trace?.end();
  }

  observe(observer: SandboxObserver): void {
    this.#observer = observer;
    for (const { fd, text, source } of this.#held.splice(0)) observer.output(fd, text, source);
  }

  /** Ends it; resolves when its processes are gone, or sandboxd with them. Safe to call again. */
  end(): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  async #end(): Promise<void> {
    this.#alive = false;
    this.#down.resolve();
    // One that is ending by itself is left to say why: a kill would hide that.
    if (this.#wentDown && (await bounded(this.ended, EXIT_WAIT_MS)) !== undefined) return;
    try {
      await this.#holder.kill(this.id);
      await bounded(this.ended, EXIT_WAIT_MS);
    } catch {
      // The holder is gone or does not answer: closing the connection ends the runner too.
    }
    this.link.destroy();
    this.#finish({ reason: "killed" });
  }

  async #onDown(error: Error | undefined): Promise<void> {
    this.#wentDown = true;
    this.#alive = false;
    this.#down.resolve();
    if (!this.#ending) this.neverBack?.(error ?? new Error("It ended before it was back"));
    if (error?.name === "ProtocolError") {
      this.#finishAs = { reason: "protocol", message: error.message };
    }
    await this.end();
  }

  #wentDown = false;
  #finishAs: SandboxExit | undefined;

  #finish(exit: SandboxExit): void {
    this.#alive = false;
    this.#down.resolve();
    this.#ended.resolve(this.#finishAs ?? exit);
    this.link.destroy();
    this.meter.close();
  }

  /** Why it ended, as the error of the invocation that met it; waits a bounded time for the reason. */
  async exitError(memoryMb: number, since?: WorkReading): Promise<CloisterError> {
    const exit = (await bounded(this.ended, EXIT_WAIT_MS + 500)) ?? {
      reason: "lost" as const,
      message: "The sandbox ended and nobody can tell why",
    };
    return exitError(exit, this.#tail, memoryMb, this.meter.memoryRefused(since));
  }
}
