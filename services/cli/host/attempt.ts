import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";

const BOUND_MS = 10_000;

/** Runs a program to see whether it can; `text` is what it printed, or why it failed, in one line. */
export function attempt(program: string, args: string[]): Promise<{ ok: boolean; text: string }> {
  return new Promise((resolve) => {
    execFile(program, args, { timeout: BOUND_MS, encoding: "utf8" }, (error, stdout, stderr) => {
      const said = (stderr.trim() || stdout.trim()).split("\n").at(-1) ?? "";
      if (!error) resolve({ ok: true, text: stdout.trim() || stderr.trim() });
      else if (error.code === "ENOENT") resolve({ ok: false, text: "not installed" });
      else resolve({ ok: false, text: said || error.message });
    });
  });
}

/** A file of /proc or /sys, trimmed; undefined when it is not there. */
export function readKernel(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}
