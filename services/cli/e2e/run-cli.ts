import { spawn } from "node:child_process";
import { commandLine, testEnvironment } from "#testkit/instance";

export interface CliResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

const BOUND_MS = 120_000;

/** Runs the real command line to its end. `data` names the instance; `input` goes to stdin. */
export function cli(
  words: string[],
  options: { data?: string; input?: string; env?: Record<string, string> } = {},
): Promise<CliResult> {
  const [program, args] = commandLine(...words);
  const env = testEnvironment({
    ...(options.data === undefined ? {} : { CLOISTER_DATA: options.data }),
    ...options.env,
  });
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], env });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  // A command that does not read its input may close it first.
  child.stdin.on("error", () => {});
  child.stdin.end(options.input ?? "");
  const timer = setTimeout(() => child.kill("SIGKILL"), BOUND_MS);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => {
      clearTimeout(timer);
      resolve({ code, stdout, stderr });
    });
  });
}
