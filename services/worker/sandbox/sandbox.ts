import { CloisterError } from "#errors/catalogue";
import { bounded } from "./bounded.ts";
import { heldAgainstLimit, type SandboxExit } from "./exit.ts";
import { functionError } from "./function-error.ts";
import type { BundleRef, InitMessage } from "./loaded-function.ts";
import type { AnswerHandler, RunnerStream } from "./runner-link.ts";
import {
  BOOT_TIMEOUT_MS,
  EXIT_WAIT_MS,
  type SandboxCore,
  type SandboxHolder,
  type SandboxObserver,
  type StartPhases,
} from "./sandbox-core.ts";
import type { SandboxMeter, WorkReading } from "./sandbox-meter.ts";

/** The first load of user code may take this long, ms. */
export const INIT_TIMEOUT_MS = 10_000;

/** What every stage of a sandbox's life can be asked. */
abstract class Stage {
  protected readonly core: SandboxCore;

  constructor(core: SandboxCore) {
    this.core = core;
  }

  get id(): string {
    return this.core.id;
  }
  get alive(): boolean {
    return this.core.alive;
  }
  get phases(): StartPhases {
    return this.core.phases;
  }
  /** Whether it was brought back from a snapshot instead of booted. */
  get restored(): boolean {
    return this.core.restored;
  }
  get down(): Promise<void> {
    return this.core.down;
  }
  get ended(): Promise<SandboxExit> {
    return this.core.ended;
  }
  /** The handler of the only invocation under way, when there is exactly one. */
  get soleHandler(): AnswerHandler | undefined {
    return this.core.link.soleHandler;
  }
  end(): Promise<void> {
    return this.core.end();
  }
}

/** Processes exist, the runner may still be starting. */
export class CreatedSandbox extends Stage {
  /** One from a snapshot with its function, on its way back. `broken` hears if it never comes back, which is no fault of the function. */
  returning(broken: (error: Error) => void): AssignedSandbox {
    this.core.returning(broken);
    return new AssignedSandbox(this.core);
  }

  /** `hear` is called once, when the first answer is whole. */
  whenAnswered(hear: () => void): void {
    this.core.firstAnswered = hear;
  }

  /**
   * Tells a runner that still starts what it will serve, so that it loads only what that needs instead of all a function may need. What `initialise` says
   * later is not sent again.
   */
  beginning(message: InitMessage): this {
    const { core } = this;
    core.beginning = core.sendInit(message);
    core.beginning.catch(() => {});
    return this;
  }

  /** Resolves when the runner waits for its function; the sandbox is ended when it does not within 10 s. */
  async booted(): Promise<BootedSandbox> {
    const { core } = this;
    const began = performance.now();
    const outcome = await bounded(
      core.link.ready.then(
        () => "ready" as const,
        () => "gone" as const,
      ),
      BOOT_TIMEOUT_MS,
    );
    if (outcome !== "ready") {
      const exit = outcome === "gone" ? await bounded(core.ended, EXIT_WAIT_MS) : undefined;
      await core.end();
      const why = exit?.message ?? core.outputTail.trim().slice(-500);
      throw new CloisterError(
        "sandbox_failed",
        outcome === "gone"
          ? `The runner ended before it was ready${why ? `: ${why}` : ""}`
          : `The runner was not ready within ${BOOT_TIMEOUT_MS} ms`,
      );
    }
    core.phases.runtime_ms = performance.now() - began;
    core.meter.findRunner();
    return new BootedSandbox(core);
  }
}

/** A booted runner without a function: a prepared cell. */
export class BootedSandbox extends Stage {
  readonly #core: SandboxCore;
  readonly #holder: SandboxHolder | undefined;

  constructor(core: SandboxCore, holder?: SandboxHolder) {
    super(core);
    this.#core = core;
    this.#holder = holder;
  }

  /** For launchers: the same sandbox, able to be assigned. */
  heldBy(holder: SandboxHolder): BootedSandbox {
    return new BootedSandbox(this.#core, holder);
  }

  /** Puts the function's files in. Once; the sandbox is ended when it fails. */
  async assign(bundle: BundleRef, label: string): Promise<AssignedSandbox> {
    if (!this.#holder) throw new Error("A sandbox that was made for a bundle cannot be assigned");
    const began = performance.now();
    try {
      await this.#holder.assign(this.#core.id, bundle, label);
    } catch (error) {
      await this.#core.end();
      throw error;
    }
    // A cell's creation was nobody's wait.
    delete this.#core.phases.create_ms;
    delete this.#core.phases.runtime_ms;
    this.#core.phases.assign_ms = performance.now() - began;
    return new AssignedSandbox(this.#core);
  }

  /** For launchers that made the sandbox with its bundle. */
  alreadyAssigned(): AssignedSandbox {
    return new AssignedSandbox(this.#core);
  }
}

/** Has its function's files, has not read one. */
export class AssignedSandbox extends Stage {
  observe(observer: SandboxObserver): void {
    this.core.observe(observer);
  }

  /**
   * Loads the user's code. Rejects with function_init_error or what the runner says, function_timeout, or why the sandbox ended;
   * the sandbox is then ended.
   */
  async initialise(message: InitMessage, timeoutMs = INIT_TIMEOUT_MS): Promise<ServingSandbox> {
    const { core } = this;
    if (core.loaded) return new ServingSandbox(core);
    const began = performance.now();
    const told = core.beginning ?? core.sendInit(message);
    const outcome = await bounded(
      told.then(
        (done) => ({ done }),
        () => "gone" as const,
      ),
      timeoutMs,
    );
    if (outcome === undefined) {
      await core.end();
      throw new CloisterError(
        "function_timeout",
        `The function was not loaded within ${timeoutMs} ms, during init`,
        { during: "init", initMs: performance.now() - began },
      );
    }
    if (outcome === "gone") {
      const error = await core.exitError(message.memoryMb);
      await core.end();
      throw new CloisterError(error.code, `During init: ${error.message}`, {
        ...error.extra,
        during: "init",
        initMs: performance.now() - began,
      });
    }
    const { done } = outcome;
    if (done.ok !== true) {
      const error = functionError(done.error, "function_init_error");
      error.extra.initMs = performance.now() - began;
      const refused = core.meter.memoryRefused();
      void core.end();
      throw heldAgainstLimit(error, refused, message.memoryMb);
    }
    core.phases.init_ms = performance.now() - began;
    return new ServingSandbox(core);
  }
}

/** Serves invocations. Only this stage can be invoked. */
export class ServingSandbox extends Stage {
  #lastCpuMs: number | undefined;
  #callCpuMs: number | undefined;
  #peakBytes: number | undefined;
  /** A call's share of what was read last, and for how many answers more of the same read it is. */
  #shareMs: number | undefined;
  #sharing = 0;
  /** The call that ended last was one of those, and not the first. */
  #shares = false;

  constructor(core: SandboxCore) {
    super(core);
    this.#lastCpuMs = core.meter.cpuMs();
    core.meter.processorWait.rest();
  }

  /**
   * Sends INVOKE and gives the stream for the request's body; the answer comes to `handler`. `behind`: it waits in the sandbox for those before it to end,
   * and `handler.begun` hears when it has begun; only where `holds`.
   */
  invoke(head: object, handler: AnswerHandler, behind = false): RunnerStream {
    this.core.meter.processorWait.begins(performance.now(), this.invocations === 0);
    return this.core.link.invoke(head, handler, behind);
  }

  /** Whether calls can wait in it behind others. */
  get holds(): boolean {
    return this.core.link.holds;
  }

  /** Has those that wait in it end with `function_recalled`, but for what has begun meanwhile. */
  recall(): void {
    this.core.link.recall();
  }

  /** Whether its function came with its snapshot. */
  get loaded(): boolean {
    return this.core.loaded;
  }

  /** Whether it can be made pristine again. */
  get resettable(): boolean {
    return this.core.resettable;
  }

  /** Makes it what it was before it served anything, for the same function. Rejects, and ends it, when that cannot be done for certain. */
  async reset(): Promise<AssignedSandbox> {
    await this.core.reset();
    return new AssignedSandbox(this.core);
  }

  startTrace(line: (text: string) => void): Promise<void> {
    return this.core.startTrace(line);
  }

  endTrace(): Promise<void> {
    return this.core.endTrace();
  }

  /** It is not back from its snapshot yet; what it is asked waits, and nothing of its function has seen it. */
  get returning(): boolean {
    return this.core.loaded && this.core.readyAtMs === undefined;
  }

  /** Resolves when it is back; rejects when it never is. */
  get back(): Promise<unknown> {
    return this.core.link.ready;
  }

  /** When the runner said READY. */
  get readyAtMs(): number | undefined {
    return this.core.readyAtMs;
  }

  /** Invocations under way, without those that wait behind them. */
  get invocations(): number {
    return this.core.link.underWay;
  }

  /** `since`: what had been done when the invocation began. */
  exitError(memoryMb: number, since?: WorkReading): Promise<CloisterError> {
    return this.core.exitError(memoryMb, since);
  }

  memoryRefused(since?: WorkReading): boolean {
    return this.core.meter.memoryRefused(since);
  }

  /** CPU time since the last call (or since init), ms; each of several whose answers came together has its share. */
  cpuDeltaMs(): number | undefined {
    const { together } = this.core.link;
    this.#shares = this.#sharing > 0 && together > 0;
    if (this.#shares) this.#sharing--;
    else {
      this.#sharing = Math.max(0, together - 1);
      const spentMs = this.#cpuSpentMs();
      this.#shareMs = spentMs === undefined ? undefined : spentMs / (this.#sharing + 1);
    }
    this.#callCpuMs = this.#shareMs;
    return this.#callCpuMs;
  }

  /** What `cpuDeltaMs` gave for a call that has ended, ms, once; undefined where none has run since. */
  takeCallCpuMs(): number | undefined {
    const cpuMs = this.#callCpuMs;
    this.#callCpuMs = undefined;
    return cpuMs;
  }

  #cpuSpentMs(): number | undefined {
    const now = this.core.meter.cpuMs();
    const last = this.#lastCpuMs;
    this.#lastCpuMs = now ?? last;
    return now === undefined || last === undefined ? undefined : Math.max(0, now - last);
  }

  /** The share of its calls' time that it waits for a processor; an invocation ends, with what `cpuDeltaMs` gave for it. */
  processorWait(cpuMs: number | undefined): number | undefined {
    return this.core.meter.processorWait.ends(performance.now(), cpuMs);
  }

  /** CPU time since it began, ms. */
  cpuMs(): number | undefined {
    return this.core.meter.cpuMs();
  }

  /** Memory that no file stands behind, KiB; for measurements. */
  privateKib(): number | undefined {
    return this.core.meter.privateKib();
  }

  memoryPeakBytes(): number | undefined {
    if (!this.#shares) this.#peakBytes = this.core.meter.memoryPeakBytes();
    return this.#peakBytes;
  }

  /** What has been done so far, for `workSince`. `followOn`: page faults are counted from the end of the invocation before. */
  work(followOn = false): WorkReading {
    return this.core.meter.work(followOn);
  }

  /** The same for an invocation that waited behind another, which has just ended. */
  get workBefore(): WorkReading {
    return this.core.meter.lastWork;
  }

  /** What has been done since. Of answers that came together all is told of the first, and nothing of the others. */
  workSince(before: WorkReading): ReturnType<SandboxMeter["workSince"]> {
    return this.#shares ? {} : this.core.meter.workSince(before);
  }
}
