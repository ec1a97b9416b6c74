import { globSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { TestMachineError } from "./failure.ts";

/** Loaded at every start: the machine's own devices and file system, then what tests of sandboxes need. */
export const MODULES = [
  "virtio_pci",
  "virtio_blk",
  "virtio_console",
  "erofs",
  "overlay",
  "squashfs",
  "loop",
  "veth",
  "tun",
  "irqbypass",
  "kvm",
  "kvm-amd",
] as const;

/**
 * Files of the modules below `root`, a kernel's lib/modules/<version>, each after those it depends on: the order insmod needs. The package
 * has no modules.dep (depmod writes that where a kernel is installed), so each file's own `depends=` is read. modinfo(8)
 */
export function modulesInOrder(root: string, names: readonly string[]): string[] {
  const files = new Map<string, string>();
  for (const path of globSync("kernel/**/*.ko", { cwd: root })) {
    files.set(canonical(basename(path, ".ko")), join(root, path));
  }
  const ordered = new Set<string>();
  const visit = (name: string, neededBy: string): void => {
    const file = files.get(canonical(name));
    if (file === undefined) {
      throw new TestMachineError(
        `The kernel has no module ${name}, which ${neededBy} needs.`,
        "Correct MODULES in infra/testvm/kernel-modules.ts for this kernel.",
      );
    }
    if (ordered.has(file)) return;
    for (const dependency of dependencies(file)) visit(dependency, name);
    ordered.add(file);
  };
  for (const name of names) visit(name, "the test machine");
  return [...ordered];
}

/** `kvm-amd.ko` is called kvm_amd by whoever depends on it. */
const canonical = (name: string): string => name.replaceAll("-", "_");

/** The section .modinfo is a row of NUL-terminated `key=value`. */
function dependencies(file: string): string[] {
  const bytes = readFileSync(file);
  const key = Buffer.from("\0depends=");
  const at = bytes.indexOf(key);
  if (at < 0) return [];
  const start = at + key.length;
  const list = bytes.toString("latin1", start, bytes.indexOf(0, start));
  return list.split(",").filter((name) => name !== "");
}
