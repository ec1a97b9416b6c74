import {
  type AssignedSandbox,
  CLONE_WARM_TURNS,
  RestoringLauncher,
  type SandboxShape,
} from "../../worker/sandbox/index.ts";
import type { Ground } from "./ground.ts";

/** Micro-VMs out of a snapshot, of the function or of the booted runner without one. */
export interface FromSnapshot {
  /** Sees to it that there is one; rejects with why there is none. */
  ready(): Promise<void>;
  /** Rejects when it had to be booted, which is no measurement of a snapshot. */
  launch(): Promise<AssignedSandbox>;
  /** One of the function that is to wait for its call, as a worker's pool makes it. */
  bringBack(): Promise<AssignedSandbox>;
}

export function fromSnapshot(ground: Ground, of: "function" | "runtime"): FromSnapshot {
  const shape: SandboxShape = { ...ground.shape, kind: "microvm" };
  const problems: Error[] = [];
  const launcher = new RestoringLauncher(ground.launcher, {
    onProblem: (error) => void problems.push(error),
    ...(of === "function" ? { functions: { hold: async () => ground.bundle } } : {}),
  });
  const none = (): Error => problems.pop() ?? new Error("the sandbox was booted");
  return {
    async ready() {
      await launcher.freeze(shape);
      const made = await launcher.functions?.make(shape, ground.spec);
      if (made && made.state !== "ready") throw new Error(made.reason ?? "there is no snapshot");
    },
    async launch() {
      const assigned = await launcher.launch(shape, "bench", ground.bundle, ground.spec);
      if (assigned.restored) return assigned;
      await assigned.end();
      throw none();
    },
    async bringBack() {
      const { bundle, spec } = ground;
      const assigned = await launcher.bringBack(shape, "bench", bundle, spec, CLONE_WARM_TURNS);
      if (!assigned) throw none();
      return assigned;
    },
  };
}
