import {
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  rmSync,
  type Stats,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, isAbsolute, join, normalize } from "node:path";
import { readElf } from "#images/elf";
import { type Artefacts, packTree } from "./artefacts.ts";
import { TestMachineError } from "./failure.ts";
import { hostFilter, hostProgram } from "./host-program.ts";
import { scratchFolder } from "./scratch.ts";

/** A file or folder of this machine, and where the test machine sees it (absolute). */
export interface Placed {
  host: string;
  guest: string;
}

/** What one start of the machine does. */
export interface Job {
  /** Program and arguments; the program is looked for in PATH of the test machine. */
  command: readonly string[];
  /** Working folder in the test machine. */
  cwd?: string;
  /** Added to PATH, HOME, LANG and TERM; nothing else is inherited. */
  env?: Readonly<Record<string, string>>;
  /** Copied into the machine's root, in memory. The libraries that a dynamic program needs come along. */
  files?: readonly Placed[];
  /** Folders as they are at the start, read-only, on a disk each. */
  shares?: readonly Placed[];
}

/** Disks fit on the PCI bus's free slots. */
const MAX_SHARES = 16;

const ENVIRONMENT = {
  PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  LANG: "C.UTF-8",
  TERM: "dumb",
};

/** A job as files without a name: they are gone with the last descriptor, whatever ends this process. */
export interface PreparedJob {
  /** The whole initramfs: the base, then the job's own. */
  initramfs: number;
  /** One erofs image per share, in order. */
  disks: number[];
}

/** Checks a job and writes what QEMU needs of it. The caller closes the descriptors. */
export async function prepareJob(job: Job, base: Artefacts): Promise<PreparedJob> {
  const files = await withLibraries(job.files ?? []);
  const shares = job.shares ?? [];
  if (shares.length > MAX_SHARES) {
    throw new TestMachineError(
      `${shares.length} shares are more than ${MAX_SHARES}.`,
      "Share a folder above them.",
    );
  }
  for (const { host, guest } of shares) {
    checkGuestPath(guest);
    if (!statOf(host).isDirectory()) {
      throw new TestMachineError(`${host} is not a folder.`, "Give files with --file.");
    }
  }
  const scratch = scratchFolder();
  const opened: number[] = [];
  try {
    const tree = join(scratch, "tree");
    const inside = join(tree, "testvm/job");
    mkdirSync(join(inside, "shares"), { recursive: true });
    writeFileSync(join(inside, "command"), commandScript(job));
    for (const [index, { guest }] of shares.entries()) {
      writeFileSync(join(inside, "shares", shareSerial(index)), `${guest}\n`);
    }
    for (const [guest, host] of files) placeFile(tree, guest, host);
    const archive = join(scratch, "job.cpio");
    await packTree(base.busybox, tree, archive);
    const whole = Buffer.concat([readFileSync(base.initramfs), readFileSync(archive)]);
    opened.push(nameless(scratch, whole));
    for (const { host } of shares) {
      const disk = nameless(scratch);
      opened.push(disk);
      await packShare(host, disk);
    }
    const [initramfs, ...disks] = opened as [number, ...number[]];
    return { initramfs, disks };
  } catch (error) {
    for (const descriptor of opened) closeSync(descriptor);
    throw error;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** What a share's disk calls itself; at most 20 characters (virtio, "Block Device", serial). */
export const shareSerial = (index: number): string => `share${index}`;

function commandScript({ command, cwd, env }: Job): string {
  const [program, ...args] = command;
  if (program === undefined || program === "") {
    throw new TestMachineError("There is no command.", "Give one after --.");
  }
  const lines = Object.entries({ ...ENVIRONMENT, ...env }).map(([name, value]) => {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
      throw new TestMachineError(`${name} is no name of a variable.`, "Use letters, digits and _.");
    }
    return `export ${name}=${quoted(value)}`;
  });
  return [
    ...lines,
    `cd ${quoted(cwd ?? "/")} || exit 126`,
    `exec ${[program, ...args].map(quoted).join(" ")}`,
    "",
  ].join("\n");
}

/** One word of sh, whatever it holds. */
function quoted(text: string): string {
  if (text.includes("\0")) {
    throw new TestMachineError("An argument holds a NUL byte.", "Remove it.");
  }
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Files by their path in the machine, with the shared libraries and the loader that they name. */
async function withLibraries(files: readonly Placed[]): Promise<Map<string, string>> {
  const all = new Map<string, string>();
  for (const { host, guest } of files) {
    checkGuestPath(guest);
    if (!statOf(host).isFile()) {
      throw new TestMachineError(`${host} is not a regular file.`, "Give folders with --share.");
    }
    all.set(guest, host);
  }
  for (const { host } of files) {
    if (readElf(host)?.interpreter === undefined) continue;
    // The loader itself says what it would load (ld.so(8), --list); ldd(1) asks it the same.
    const list = await hostProgram("ldd", [host], {
      remedy: `Make sure that ${host} runs on this machine.`,
    });
    for (const [, missing] of list.matchAll(/^\s*(\S+) => not found/gm)) {
      throw new TestMachineError(`${host} needs ${missing}, which is not here.`, "Install it.");
    }
    for (const [, library] of list.matchAll(/^\s*(?:\S+ => )?(\/\S+) \(0x/gm)) {
      if (library !== undefined) all.set(library, realpathSync(library));
    }
  }
  return all;
}

function checkGuestPath(path: string): void {
  const sound =
    isAbsolute(path) && normalize(path) === path && path !== "/" && !/[\0\n]/.test(path);
  if (sound) return;
  throw new TestMachineError(
    `${JSON.stringify(path)} cannot be a path in the test machine.`,
    "Use an absolute path without . and .., and not /.",
  );
}

function statOf(path: string): Stats {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) throw new TestMachineError(`${path} is not there.`, "Correct the path.");
  return stat;
}

function placeFile(tree: string, guest: string, host: string): void {
  const to = join(tree, guest);
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(host, to, constants.COPYFILE_FICLONE);
  chmodSync(to, statOf(host).mode & 0o7777);
}

/** A file that has no name any more, open for reading and writing. */
function nameless(folder: string, content = Buffer.alloc(0)): number {
  const path = join(folder, "nameless");
  writeFileSync(path, content, { flag: "wx", mode: 0o600 });
  const descriptor = openSync(path, "r+");
  unlinkSync(path);
  return descriptor;
}

/** Not compressed: unpacking would be emulated. */
async function packShare(folder: string, disk: number): Promise<void> {
  await hostFilter("mkfs.erofs", ["--quiet", "/proc/self/fd/3", folder], {
    input: "",
    output: "ignore",
    extra: [disk],
    remedy: "Free some disk space and check that the folder can be read.",
  });
}
