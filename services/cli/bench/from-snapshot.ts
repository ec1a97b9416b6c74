import {
  type AssignedSandbox,
  CLONE_WARM_TURNS,
  RestoringLauncher,
  type SandboxShape,
} from "../../worker/sandbox/index.ts";
import { firstAnswer } from "./first-answer.ts";
import type { Ground } from "./ground.ts";

/** Micro-VMs out of a snapshot, of the function or of the booted runner without one. */
export interface FromSnapshot {
  /** Sees to it that there is one, and that it is known what first answers touch, as of one that serves; rejects with why there is none. */
  ready(): Promise<void>;
  /** Rejects when it had to be booted, which is no measurement of a snapshot. */
  launch(): Promise<AssignedSandbox>;
  /** One of the function that is to wait for its call, as a worker's pool makes it. */
  bringBack(): Promise<AssignedSandbox>;
}

/** Two are looked at. A look may fail. */
const MOST_LOOKS = 5;

export function fromSnapshot(ground: Ground, of: "function" | "runtime"): FromSnapshot {
  const shape: SandboxShape = { ...ground.shape, kind: "microvm" };
  const problems: Error[] = [];
  const launcher = new RestoringLauncher(ground.launcher, {
    onProblem: (error) => void problems.push(error),
    ...(of === "function"
      ? { functions: { hold: async () => ground.bundle, looked: (again) => looked(again) } }
      : {}),
  });
  let looked: (again: boolean) => void = () => {};
  let known = false;
  const none = (): Error => problems.pop() ?? new Error("the sandbox was booted");
  async function launch(): Promise<AssignedSandbox> {
    const assigned = await launcher.launch(shape, "bench", ground.bundle, ground.spec);
    if (assigned.restored) return assigned;
    await assigned.end();
    throw none();
  }
  /** Whether another one is to answer: one that ends with its answer, as those that are measured do, cannot be looked at. */
  async function isToLookAgain(): Promise<boolean> {
    const look = Promise.withResolvers<boolean>();
    looked = look.resolve;
    const serving = await firstAnswer(await launch(), ground);
    const again = await look.promise;
    await serving.end();
    return again;
  }
  return {
    async ready() {
      await launcher.freeze(shape);
      const made = await launcher.functions?.make(shape, ground.spec);
      if (!made || known) return;
      if (made.state !== "ready") throw new Error(made.reason ?? "there is no snapshot");
      for (let looks = 0; looks < MOST_LOOKS && !known; looks++) known = !(await isToLookAgain());
    },
    launch,
    async bringBack() {
      const { bundle, spec } = ground;
      const assigned = await launcher.bringBack(shape, "bench", bundle, spec, CLONE_WARM_TURNS);
      if (!assigned) throw none();
      return assigned;
    },
  };
}
