import { existsSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { controlGroups } from "./kernel.ts";

/** What a measurement must be read with. */
export interface HostFacts {
  cpu: string;
  cores: number;
  memoryMb: number;
  kernel: string;
  cgroup: string;
  kvm: boolean;
  node: string;
}

export function hostFacts(): HostFacts {
  const [first] = cpus();
  return {
    cpu: first?.model.trim() ?? "unknown",
    cores: cpus().length,
    memoryMb: Math.round(totalmem() / 1024 / 1024),
    kernel: release(),
    cgroup: controlGroups()[0]?.detail ?? "unknown",
    kvm: existsSync("/dev/kvm"),
    node: process.version,
  };
}
