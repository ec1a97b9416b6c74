import { readFileSync } from "node:fs";

/** /proc/stat counts in steps of 10 ms; a share of less time than this is noise, ms. */
const WINDOW_MS = 100;
/** Less idle time than this share, and another process mostly takes turns from those that run. */
const IDLE_SHARE = 0.2;

/** First line of /proc/stat (proc_stat(5)), in ticks; undefined where it is not to be had. */
function readTicks(): { idle: number; all: number } | undefined {
  let text: string;
  try {
    text = readFileSync("/proc/stat", "utf8");
  } catch {
    return undefined;
  }
  const ticks = text.slice(0, text.indexOf("\n")).split(/\s+/).slice(1, 9).map(Number);
  const [, , , idle = 0, iowait = 0] = ticks;
  return { idle: idle + iowait, all: ticks.reduce((sum, one) => sum + one, 0) };
}

/** Whether all of the machine's processors have had work lately. Asked often, it looks ten times a second. */
export class ProcessorLoad {
  #atMs = Number.NEGATIVE_INFINITY;
  #last: ReturnType<typeof readTicks>;
  /** Unknown until there are two readings close to each other. */
  #idleShare: number | undefined;

  saturated(nowMs: number): boolean {
    const sinceMs = nowMs - this.#atMs;
    if (sinceMs >= WINDOW_MS) {
      const now = readTicks();
      // What was long ago says nothing of now.
      if (sinceMs > 5 * WINDOW_MS) this.#idleShare = undefined;
      else if (now && this.#last && now.all > this.#last.all) {
        const share = (now.idle - this.#last.idle) / (now.all - this.#last.all);
        this.#idleShare = ((this.#idleShare ?? share) + share) / 2;
      }
      this.#last = now;
      this.#atMs = nowMs;
    }
    return this.#idleShare !== undefined && this.#idleShare < IDLE_SHARE;
  }
}
