import { type ChildProcess, fork } from "node:child_process";
import { setPriority } from "node:os";
import { join } from "node:path";
import { childEnd } from "#embedded/process-life";
import type { Outcome } from "./run-check.ts";

/** What a step's own process says: lines for people, and once how it ended. */
export type StepMessage = { line: string } | { outcome: Outcome };

/** Weight of a step that runs beside others (nice(2)): it has what they leave of the processors. */
const BESIDE_NICE = 5;

/** A step in a process of its own, beside the others. */
export class StepBeside {
  readonly #child: ChildProcess;
  readonly #ended: Promise<Outcome>;
  #lines: string[] = [];
  /** On performance's clock, ms: it may have ended long before anybody asks how. */
  #endedAt = 0;
  #tell: ((line: string) => void) | undefined;

  /** Starts the step of that name. It ends with this process, whatever ends that. */
  constructor(name: string) {
    this.#child = fork(join(import.meta.dirname, "step-process.ts"), [name], { stdio: "inherit" });
    if (this.#child.pid !== undefined) setPriority(this.#child.pid, BESIDE_NICE);
    let outcome: Outcome | undefined;
    this.#child.on("message", (message: StepMessage) => {
      if ("outcome" in message) outcome = message.outcome;
      else if (this.#tell) this.#tell(message.line);
      else this.#lines.push(message.line);
    });
    this.#ended = childEnd(this.#child).then(({ code, signal }) => {
      this.#endedAt = performance.now();
      const output = `the step's process ended with ${signal ?? `exit code ${code}`}`;
      return outcome ?? { passed: 0, failed: 1, skipped: 0, output };
    });
  }

  /** Resolves when it has ended; `tell` hears what it has said so far, and what it says from now on. */
  async outcome(tell: (line: string) => void): Promise<Outcome & { endedAt: number }> {
    for (const line of this.#lines) tell(line);
    this.#lines = [];
    this.#tell = tell;
    const outcome = await this.#ended;
    return { ...outcome, endedAt: this.#endedAt };
  }
}
