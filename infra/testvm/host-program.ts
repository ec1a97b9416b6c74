import { execFile, type StdioOptions, spawn } from "node:child_process";
import { promisify } from "node:util";
import { TestMachineError } from "./failure.ts";

const execFileAsync = promisify(execFile);
const BOUND_MS = 300_000;
const MAX_OUTPUT_BYTES = 16 << 20;

/** The person's own, e.g. for apt's proxy, but messages in English and no questions. */
const environment = { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" };

/** Runs a program of this machine to its end and gives its standard output. Failure is a TestMachineError with its last line. */
export async function hostProgram(
  program: string,
  args: string[],
  options: { remedy: string; cwd?: string },
): Promise<string> {
  try {
    const { stdout } = await execFileAsync(program, args, {
      cwd: options.cwd,
      env: environment,
      timeout: BOUND_MS,
      maxBuffer: MAX_OUTPUT_BYTES,
    });
    return stdout;
  } catch (cause) {
    const said = cause instanceof Error && "stderr" in cause ? String(cause.stderr).trim() : "";
    const why = said.split("\n").at(-1) || (cause instanceof Error ? cause.message : String(cause));
    throw new TestMachineError(`${program} ${args[0] ?? ""} failed: ${why}`, options.remedy, {
      cause,
    });
  }
}

/** The same for a program that reads `input` on standard input, writes to descriptor `output`, and gets `extra` as descriptors 3 and up. */
export async function hostFilter(
  program: string,
  args: string[],
  options: {
    remedy: string;
    cwd?: string;
    input: string;
    output: number | "ignore";
    extra?: number[];
  },
): Promise<void> {
  const stdio: StdioOptions = ["pipe", options.output, "pipe", ...(options.extra ?? [])];
  const child = spawn(program, args, {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: environment,
    stdio,
    timeout: BOUND_MS,
    killSignal: "SIGKILL",
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const failed = (why: string) => new TestMachineError(`${program} failed: ${why}`, options.remedy);
  let said = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(-4096);
  });
  child.once("error", (error) => reject(failed(error.message)));
  child.once("close", (code, signal) => {
    if (code === 0) resolve();
    else reject(failed(said.trim().split("\n").at(-1) || `it ended with ${code ?? signal}`));
  });
  // A program that ended early says why on stderr; the broken pipe says nothing more.
  child.stdin?.on("error", () => {});
  child.stdin?.end(options.input);
  return promise;
}
