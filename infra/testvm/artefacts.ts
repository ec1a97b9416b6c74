import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { hashFile, hashText, listTree } from "#images/tree";
import { TestMachineError } from "./failure.ts";
import { hostFilter, hostProgram } from "./host-program.ts";
import { MODULES, modulesInOrder } from "./kernel-modules.ts";
import { type DebianPackage, resolvePackages, unpackPackage } from "./packages.ts";
import { CACHE, scratchFolder } from "./scratch.ts";

/** Everything of the machine that is the same for each start. */
export interface Artefacts {
  /** Linux, bzImage. */
  kernel: string;
  /** cpio (newc) with busybox, modules and init. */
  initramfs: string;
  /** The machine's busybox, static: it packs what is added for one start as well. */
  busybox: string;
}

const GUEST = join(import.meta.dirname, "guest");

/** Kernel and initramfs for the newest packages, built when there are none yet. Its folder is named by what it was made from. */
export async function testMachineArtefacts(tell: (line: string) => void): Promise<Artefacts> {
  mkdirSync(CACHE, { recursive: true });
  const packages = await resolvePackages(join(CACHE, "packages.json"), tell);
  const recipe = ["artefacts.ts", "kernel-modules.ts", "guest/init", "guest/start"];
  const inputs = [
    ...packages.map(({ name, version, sha256 }) => `${name} ${version} ${sha256}`),
    ...recipe.map((file) => hashFile(join(import.meta.dirname, file))),
  ];
  const key = hashText(inputs.join("\n")).slice(0, 16);
  const folder = join(CACHE, key);
  if (!existsSync(folder)) await build(packages, folder, tell);
  return {
    kernel: join(folder, "vmlinuz"),
    initramfs: join(folder, "initramfs.cpio"),
    busybox: join(folder, "busybox"),
  };
}

async function build(
  packages: DebianPackage[],
  folder: string,
  tell: (line: string) => void,
): Promise<void> {
  const began = performance.now();
  const scratch = scratchFolder();
  try {
    tell(`building the machine from ${packages.map((entry) => entry.file).join(", ")}`);
    const unpacked = join(scratch, "unpacked");
    for (const entry of packages) await unpackPackage(entry, scratch, unpacked);
    const version = onlyEntry(join(unpacked, "lib/modules"));
    const result = join(scratch, "result");
    mkdirSync(result);
    copyFileSync(join(unpacked, `boot/vmlinuz-${version}`), join(result, "vmlinuz"));
    const tree = join(scratch, "tree");
    const busybox = join(result, "busybox");
    copyFileSync(join(unpacked, "bin/busybox"), busybox);
    await placeBusybox(tree, busybox);
    placeModules(tree, join(unpacked, "lib/modules", version));
    placeInit(tree);
    await packTree(busybox, tree, join(result, "initramfs.cpio"));
    publish(result, folder);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  removeOthers(basename(folder));
  tell(`built in ${((performance.now() - began) / 1000).toFixed(1)} s`);
}

async function placeBusybox(tree: string, busybox: string): Promise<void> {
  place(tree, "bin/busybox", busybox, 0o755);
  const list = await hostProgram(busybox, ["--list-full"], { remedy: "Run this on x86_64." });
  for (const applet of list.split("\n").filter((line) => line !== "" && line !== "bin/busybox")) {
    mkdirSync(dirname(join(tree, applet)), { recursive: true });
    symlinkSync("/bin/busybox", join(tree, applet));
  }
}

function placeModules(tree: string, root: string): void {
  const files = modulesInOrder(root, MODULES);
  for (const file of files) place(tree, `testvm/modules/${basename(file)}`, file, 0o644);
  const order = files.map((file) => `${basename(file)}\n`).join("");
  writeFileSync(join(tree, "testvm/modules/order"), order);
}

function placeInit(tree: string): void {
  place(tree, "init", join(GUEST, "init"), 0o755);
  place(tree, "testvm/start", join(GUEST, "start"), 0o755);
  for (const name of ["dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "testvm/root"]) {
    mkdirSync(join(tree, name), { recursive: true });
  }
  writeFileSync(join(tree, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
  writeFileSync(join(tree, "etc/group"), "root:x:0:\n");
  writeFileSync(join(tree, "etc/hosts"), "127.0.0.1 localhost\n");
}

/** Writes a folder as cpio in the form the kernel unpacks (newc, Documentation/driver-api/early-userspace/buffer-format.rst). */
export async function packTree(busybox: string, tree: string, archive: string): Promise<void> {
  const output = openSync(archive, "wx", 0o644);
  try {
    await hostFilter(busybox, ["cpio", "-o", "-H", "newc", "-R", "0:0"], {
      cwd: tree,
      input: listTree(tree)
        .map((path) => `${path}\n`)
        .join(""),
      output,
      remedy: "Free some disk space, or remove .cloister/testvm to have it built again.",
    });
  } finally {
    closeSync(output);
  }
}

function place(tree: string, path: string, from: string, mode: number): void {
  const to = join(tree, path);
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
  chmodSync(to, mode);
}

/** The folder appears whole or not at all. */
function publish(result: string, folder: string): void {
  try {
    renameSync(result, folder);
  } catch (error) {
    // Another run made the same at the same time.
    if (!existsSync(folder)) throw error;
  }
}

/** Older machines: a run that uses one has its files open, so they may go. */
function removeOthers(keep: string): void {
  for (const name of readdirSync(CACHE)) {
    if (/^[0-9a-f]{16}$/.test(name) && name !== keep) {
      rmSync(join(CACHE, name), { recursive: true, force: true });
    }
  }
}

function onlyEntry(folder: string): string {
  const [name, ...others] = readdirSync(folder);
  if (name === undefined || others.length > 0) {
    throw new TestMachineError(
      `The kernel's package holds ${name === undefined ? "no" : "several"} versions of modules.`,
      "Correct infra/testvm/artefacts.ts for this package.",
    );
  }
  return name;
}
