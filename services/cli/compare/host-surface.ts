import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { filesBelow } from "../host/files-below.ts";
import { imagesFolder } from "../instance/folders.ts";

/** What stands between a function and the host's kernel, and how large what it runs in is; counted, not declared. */
export interface HostSurface {
  /** System calls that this architecture has, by the kernel's headers; null where they are not installed. */
  kernel_calls: number | null;
  /** That the container's filter lets through. */
  container_calls: number;
  /** That a micro-VM's monitor may make; its guest makes none. */
  monitor_calls: number;
  image_bytes: number;
}

/** Threads that run guest code have one list, the monitor's own has another. */
const MONITOR = "vmm/resources/seccomp/monitor.json";

const ruleSchema = z.object({
  match_action: z.union([z.string(), z.looseObject({})]),
  filter: z.array(z.object({ syscall: z.string() })),
});

export function hostSurface(image: string): HostSurface {
  const manifest = z
    .looseObject({ layers: z.array(z.string()) })
    .parse(JSON.parse(readFileSync(join(imagesFolder(), `${image}.json`), "utf8")));
  const bytes = manifest.layers.map((layer) => bytesBelow(join(imagesFolder(), "layers", layer)));
  return {
    kernel_calls: kernelCalls(),
    container_calls: allowed("runtime/container/seccomp/runner.json", "runner").size,
    monitor_calls: new Set([...allowed(MONITOR, "guest"), ...allowed(MONITOR, "reactor")]).size,
    image_bytes: bytes.reduce((sum, one) => sum + one, 0),
  };
}

/** Names that a list lets through, whatever it says of their arguments. */
export function allowed(file: string, list: string): Set<string> {
  const lists = z
    .record(z.string(), ruleSchema)
    .parse(JSON.parse(readFileSync(join(PROJECT_ROOT, file), "utf8")));
  const chosen = lists[list];
  if (chosen?.match_action !== "allow")
    throw new Error(`${file} has no list ${list} of what is allowed`);
  return new Set(chosen.filter.map(({ syscall }) => syscall));
}

function kernelCalls(): number | null {
  try {
    const header = readFileSync("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "latin1");
    return header.match(/^#define __NR_/gm)?.length ?? null;
  } catch {
    return null;
  }
}

const bytesBelow = (folder: string): number =>
  filesBelow(folder).reduce((sum, file) => sum + statSync(file).size, 0);
