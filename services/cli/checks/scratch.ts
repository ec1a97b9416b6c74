import { mkdirSync, readdirSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { freemem, tmpdir } from "node:os";
import { join } from "node:path";
import { startTimeOf } from "#embedded/process-life";

/** A file system in memory on every Linux; containers may have one that is small, or that nothing can be executed from. */
const MEMORY = "/dev/shm";
/** What has to be free there, and of the memory: test files use far less of it at a time, bytes. */
const ENOUGH_BYTES = 4 * 1024 ** 3;
/** f_type of tmpfs, statfs(2). */
const TMPFS = 0x01021994;
let made = 0;

/** Where test files put what they make. Its path is short: that of a socket holds 107 characters. */
export interface Scratch {
  folder: string;
  [Symbol.dispose](): void;
}

/**
 * A new folder, in memory if there is enough of it: tests make and remove databases, images and bundles of thousands of files. It goes when disposed of; one of
 * a run that was killed goes at the next run.
 */
export function makeScratch(): Scratch {
  const base = memoryServes() ? MEMORY : tmpdir();
  for (const name of readdirSync(base)) {
    const [, pid, startTime] = /^cloister-(\d+)-(\d+)-\d+$/.exec(name) ?? [];
    if (pid !== undefined && startTimeOf(Number(pid)) !== startTime)
      rmSync(join(base, name), { recursive: true, force: true });
  }
  const folder = join(base, `cloister-${process.pid}-${startTimeOf(process.pid)}-${made++}`);
  mkdirSync(folder, { mode: 0o711 });
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

function memoryServes(): boolean {
  try {
    const { type, bavail, bsize } = statfsSync(MEMORY);
    if (type !== TMPFS || Math.min(bavail * bsize, freemem()) < ENOUGH_BYTES) return false;
    const mounts = readFileSync("/proc/self/mounts", "utf8");
    const options = new RegExp(`^\\S+ ${MEMORY} tmpfs (\\S+)`, "m").exec(mounts)?.[1]?.split(",");
    return options?.includes("rw") === true && !options.includes("noexec");
  } catch {
    return false;
  }
}
