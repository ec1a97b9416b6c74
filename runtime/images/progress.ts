import { execFile } from "node:child_process";
import { promisify } from "node:util";

export type Progress = (line: string) => void;

/** A build that cannot go on: what is wrong and what to do about it. */
export class ImageBuildError extends Error {
  readonly remedy: string;

  constructor(message: string, remedy: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "ImageBuildError";
    this.remedy = remedy;
  }
}

const execFileAsync = promisify(execFile);
const MAX_OUTPUT_BYTES = 64 << 20;

/** Runs a program to its end and gives its standard output; `timeoutMs` bounds it. Failure is an ImageBuildError. */
export async function run(
  program: string,
  args: string[],
  options: { cwd?: string; env?: Record<string, string>; remedy: string; timeoutMs?: number },
): Promise<string> {
  try {
    const { stdout } = await execFileAsync(program, args, {
      cwd: options.cwd,
      env: options.env ?? {
        PATH: process.env.PATH ?? "/usr/sbin:/usr/bin:/sbin:/bin",
        LC_ALL: "C",
      },
      maxBuffer: MAX_OUTPUT_BYTES,
      timeout: options.timeoutMs ?? 300_000,
    });
    return stdout;
  } catch (cause) {
    throw new ImageBuildError(
      `${program} ${args[0] ?? ""} failed: ${reason(cause)}`,
      options.remedy,
      {
        cause,
      },
    );
  }
}

function reason(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  const stderr = "stderr" in cause ? String(cause.stderr).trim() : "";
  const last = stderr.split("\n").findLast((line) => line.trim() !== "");
  return last ?? cause.message.split("\n")[0] ?? "unknown";
}
