import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { startTimeOf } from "#embedded/process-life";
import { PROJECT_ROOT } from "#embedded/unprivileged";

/** Where kernels and initramfs stand, each in a folder named by what it was made from. */
export const CACHE = join(PROJECT_ROOT, ".cloister/testvm");

/** A new folder for work in progress. Those of processes that were killed are removed on the way; its name says whose it is. */
export function scratchFolder(): string {
  mkdirSync(CACHE, { recursive: true });
  for (const name of readdirSync(CACHE)) {
    const [, pid, started] = /^scratch-(\d+)-(\d+)-/.exec(name) ?? [];
    if (pid !== undefined && startTimeOf(Number(pid)) !== started) {
      rmSync(join(CACHE, name), { recursive: true, force: true });
    }
  }
  return mkdtempSync(join(CACHE, `scratch-${process.pid}-${startTimeOf(process.pid)}-`));
}
