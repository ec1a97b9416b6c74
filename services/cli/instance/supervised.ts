import type { ChildProcess } from "node:child_process";
import { childEnd, startTimeOf } from "#embedded/process-life";
import { messageOf } from "../failure.ts";
import { LogFile } from "./log-file.ts";
import type { KnownProcess } from "./state-file.ts";

/** A process that serves. */
export interface Running {
  child: ChildProcess;
  /** Drains and ends it; resolves when it has ended. */
  stop(): Promise<void>;
}

export interface StartHooks {
  onLine(line: string): void;
  onSpawn(child: ChildProcess): void;
}

export interface ServiceSpec {
  name: string;
  /** Resolves when it serves; rejects with a sentence, and then nothing of it runs. */
  start(hooks: StartHooks): Promise<Running>;
  /** What it leaves behind when it is killed is removed by its next start. */
  removesLeftovers?: true;
}

export interface SupervisedEvents {
  /** A sentence for people. */
  tell(sentence: string): void;
  /** Each line the service writes. */
  line(name: string, line: string): void;
  /** Its process has changed. */
  changed(): void;
}

const BACKOFF_FIRST_MS = 100;
const BACKOFF_LAST_MS = 5000;
/** After this long without an end the next end counts as a first one, ms. */
const STEADY_MS = 30_000;

/** Keeps one service running until it is stopped. */
export class Supervised {
  readonly name: string;
  readonly #spec: ServiceSpec;
  readonly #events: SupervisedEvents;
  readonly #log: LogFile;
  #child: ChildProcess | undefined;
  #running: Running | undefined;
  #known: KnownProcess | undefined;
  #stopping = false;
  #killed = false;
  /** Started once more to remove what it left. */
  #leaving = false;
  #failures = 0;
  #retry: NodeJS.Timeout | undefined;

  constructor(spec: ServiceSpec, logPath: string, events: SupervisedEvents) {
    this.name = spec.name;
    this.#spec = spec;
    this.#events = events;
    this.#log = new LogFile(logPath);
  }

  /** The process, once it is there. */
  get process(): KnownProcess | undefined {
    return this.#known;
  }

  /** First start: its failure is the caller's, later ones are retried. Resolves with how long it took, ms. */
  async start(): Promise<number> {
    const began = performance.now();
    await this.#launch();
    return performance.now() - began;
  }

  async #launch(): Promise<void> {
    const running = await this.#spec.start({
      onLine: (line) => {
        this.#log.write(line);
        this.#events.line(this.name, line);
      },
      onSpawn: (child) => {
        this.#child = child;
        const startTime = child.pid === undefined ? undefined : startTimeOf(child.pid);
        this.#known =
          child.pid !== undefined && startTime !== undefined
            ? { pid: child.pid, startTime }
            : undefined;
        this.#events.changed();
        if (this.#stopping && !this.#leaving) child.kill("SIGKILL");
      },
    });
    this.#running = running;
    const since = performance.now();
    void childEnd(running.child).then(({ code, signal }) => {
      this.#running = undefined;
      this.#known = undefined;
      if (this.#stopping) return;
      this.#events.changed();
      if (performance.now() - since > STEADY_MS) this.#failures = 0;
      this.#again(`${this.name} ended (${signal ?? `exit code ${code}`})`);
    });
  }

  #again(what: string): void {
    const pause = Math.min(BACKOFF_FIRST_MS * 2 ** this.#failures, BACKOFF_LAST_MS);
    this.#failures += 1;
    this.#events.tell(`${what}; starting it again in ${pause} ms.`);
    this.#retry = setTimeout(() => {
      if (this.#stopping) return;
      this.#launch().then(
        () => this.#events.tell(`${this.name} runs again.`),
        (error) => {
          if (!this.#stopping) this.#again(`${this.name} did not start: ${messageOf(error)}`);
        },
      );
    }, pause);
  }

  /** Drains and ends it for good. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#retry);
    if (this.#running) await this.#running.stop();
    // Not ready yet: there is nothing to drain.
    else this.#child?.kill("SIGKILL");
    if (!this.#child) return;
    const { code } = await childEnd(this.#child);
    if (code !== 0 && this.#spec.removesLeftovers && !this.#killed) await this.#leave();
  }

  /** It was killed, and no next start would come: what it left would stay until somebody starts the instance again. */
  async #leave(): Promise<void> {
    this.#leaving = true;
    try {
      await this.#launch();
      await this.#running?.stop();
    } catch (error) {
      this.#events.tell(`${this.name} could not remove what it had left: ${messageOf(error)}.`);
    }
  }

  /** Ends it at once; `stop` then resolves soon. */
  kill(): void {
    this.#stopping = true;
    this.#killed = true;
    clearTimeout(this.#retry);
    this.#child?.kill("SIGKILL");
  }
}
