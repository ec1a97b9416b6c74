import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { childEnd, endGroup, killGroup } from "#embedded/process-life";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { messageOf } from "../failure.ts";

/** What the process of a test file says: of each test how it ended, and once that all have. */
export type TestReport =
  | { name: string; line: number; skipped?: string; failure?: string }
  | { over: true };

/** How a test file ended. */
export interface FileEnd {
  /** Why it counts as failed whatever its tests said; undefined if that decides. */
  failure?: string;
  /** The end of what it printed. */
  printed: string;
  ms: number;
}

export interface FileOptions {
  /** When it says so the file is ended, and has failed for the signal's reason. */
  bound: AbortSignal;
  /** Variables beside those of this process. */
  env?: Record<string, string>;
}

const REPORTER = join(import.meta.dirname, "file-reporter.ts");
/** Characters. */
const MAX_PRINTED = 8192;
/** For what was printed to arrive, once nobody of the file's group is left who could print more, ms. */
const DRAIN_MS = 2_000;

/**
 * Runs a test file in a process and a process group of its own, and hears of its tests. What it has started and left ends with it. Resolves even if something
 * that has left the group still holds what the file printed to.
 */
export async function runTestFile(
  file: string,
  { bound, env = {} }: FileOptions,
  hear: (report: Exclude<TestReport, { over: true }>) => void,
): Promise<FileEnd> {
  const began = performance.now();
  const args = [
    "--disable-warning=ExperimentalWarning",
    ...["--test-reporter", REPORTER, "--test-reporter-destination", "stdout"],
    file,
  ];
  const child = spawn(process.execPath, args, {
    cwd: PROJECT_ROOT,
    detached: true,
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    env: { ...process.env, ...env },
  });
  track(child);
  let printed = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => {
      printed = (printed + text).slice(-MAX_PRINTED);
    });
  }
  let over = false;
  let failures = 0;
  child.on("message", (report: TestReport) => {
    if ("over" in report) {
      over = true;
      return;
    }
    if (report.failure !== undefined) failures += 1;
    hear(report);
  });
  const onBound = (): void => killGroup(child);
  bound.addEventListener("abort", onBound, { once: true });
  const heard = new Promise<void>((resolve) => child.once("disconnect", resolve));
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const { code, signal } = await childEnd(child);
  bound.removeEventListener("abort", onBound);
  const late = bound.aborted;
  if (child.pid !== undefined) {
    await heard;
    killGroup(child);
    const drain = setTimeout(() => endGroup(child), DRAIN_MS);
    await closed;
    clearTimeout(drain);
  }
  untrack(child);
  const ms = performance.now() - began;
  const ended = signal ?? `exit code ${code}`;
  if (late)
    return { ms, printed, failure: `ended with all it had started: ${messageOf(bound.reason)}` };
  if (!over) return { ms, printed, failure: `ended with ${ended} before its tests were over` };
  if (code !== 0 && failures === 0)
    return { ms, printed, failure: `ended with ${ended}, and no test says why` };
  return { ms, printed };
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const running = new Set<ChildProcess>();

const endAll = (): void => {
  for (const child of running) killGroup(child);
};
/** A terminal's Ctrl-C does not reach groups of their own. */
const onSignal = (signal: NodeJS.Signals): void => {
  endAll();
  for (const name of SIGNALS) process.removeListener(name, onSignal);
  process.kill(process.pid, signal);
};

/** Its group ends with this process. After kill -9 the file's process sees to that itself (file-reporter.ts), unless a test keeps it busy. */
function track(child: ChildProcess): void {
  if (running.size === 0) {
    for (const name of SIGNALS) process.on(name, onSignal);
    process.on("exit", endAll);
  }
  running.add(child);
}

function untrack(child: ChildProcess): void {
  running.delete(child);
  if (running.size > 0) return;
  for (const name of SIGNALS) process.removeListener(name, onSignal);
  process.removeListener("exit", endAll);
}
