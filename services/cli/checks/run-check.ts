import { spawn } from "node:child_process";
import { childEnd } from "#embedded/process-life";
import { PROJECT_ROOT } from "#embedded/unprivileged";

/** What a step of the tests came to. */
export interface Outcome {
  passed: number;
  failed: number;
  skipped: number;
  /** Shown when something failed. */
  output: string;
}

/** The output's end is what tells; more than this is not kept, characters. */
const MAX_OUTPUT = 2 * 1024 * 1024;

export interface RunOptions {
  cwd?: string;
  env?: Record<string, string>;
  boundMs?: number;
}

/** Runs a program to its end; gives its exit code and all it printed. */
export async function runProgram(
  program: string,
  args: string[],
  options: RunOptions = {},
): Promise<{ code: number | null; output: string }> {
  const child = spawn(program, args, {
    cwd: options.cwd ?? PROJECT_ROOT,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1", ...options.env },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output = (output + text).slice(-MAX_OUTPUT);
    });
  }
  const boundMs = options.boundMs ?? 900_000;
  const timer = setTimeout(() => {
    output += `\nended after ${boundMs / 1000} s\n`;
    child.kill("SIGKILL");
  }, boundMs);
  child.once("error", (error) => {
    output += `${program}: ${error.message}\n`;
  });
  const closed = new Promise<void>((resolve) => {
    child.once("close", () => resolve());
    child.once("error", () => resolve());
  });
  const { code } = await childEnd(child);
  await closed;
  clearTimeout(timer);
  return { code, output };
}

/** A program that is one check: it passes when it ends with 0. */
export async function runCheck(
  program: string,
  args: string[],
  options: RunOptions = {},
): Promise<Outcome> {
  const { code, output } = await runProgram(program, args, options);
  return code === 0
    ? { passed: 1, failed: 0, skipped: 0, output }
    : { passed: 0, failed: 1, skipped: 0, output };
}
