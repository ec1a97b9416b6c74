import type { Path } from "#contracts/function";
import {
  type BootedSandbox,
  type FunctionSnapshotsOptions,
  ProcessLauncher,
  RestoringLauncher,
  type SandboxShape,
  type ServingSandbox,
} from "../../worker/sandbox/index.ts";
import { answer, firstAnswer } from "./first-answer.ts";
import type { Ground } from "./ground.ts";
import type { Mode } from "./rounds.ts";
import { factsOf } from "./run-facts.ts";

/** Starts the image's own program and runner without any walls, so that only the walls differ. */
export function processLauncher(ground: Ground): ProcessLauncher {
  const argv = ground.argv.map((word) =>
    word.startsWith("/usr/") || word.startsWith("/cloister/") ? `${ground.rootfs}${word}` : word,
  );
  return new ProcessLauncher(() => argv);
}

/** The bare runner: no isolation at all, what the others are measured against. */
export function processMode(ground: Ground): Mode {
  const launcher = processLauncher(ground);
  let serving: ServingSandbox | undefined;
  return {
    name: "process",
    async measured() {
      serving = await firstAnswer(
        await launcher.launch(ground.shape, "bench", ground.bundle),
        ground,
      );
    },
    async after() {
      await serving?.end();
      serving = undefined;
    },
  };
}

export function coldMode(ground: Ground, kind: Path): Mode {
  const shape = { ...ground.shape, kind };
  let serving: ServingSandbox | undefined;
  return {
    name: `${kind}-cold`,
    async measured() {
      const assigned = await ground.launcher.launch(shape, "bench", ground.bundle);
      serving = await firstAnswer(assigned, ground);
    },
    facts: () => factsOf(serving as ServingSandbox, ground),
    async after() {
      await serving?.end();
      serving = undefined;
    },
  };
}

export function preparedMode(ground: Ground, kind: Path): Mode {
  const shape = { ...ground.shape, kind };
  let cell: BootedSandbox | undefined;
  let serving: ServingSandbox | undefined;
  return {
    name: `${kind}-prepared`,
    async before() {
      cell = await ground.launcher.prepare(shape, "bench");
    },
    async measured() {
      if (!cell) throw new Error("there is no cell");
      serving = await firstAnswer(await cell.assign(ground.bundle, "bench"), ground);
    },
    facts: () => factsOf(serving as ServingSandbox, ground),
    async after() {
      await cell?.end();
      cell = undefined;
    },
  };
}

/** From the request for a sandbox to the first answer, out of a snapshot of the function: loaded, warm, ready to answer. */
export function restoredMode(ground: Ground): Mode {
  const functions = { hold: async () => ground.bundle };
  return modeOf("microvm-restored", ground, functions, async (launcher, shape) => {
    await launcher.freeze(shape);
    const made = await launcher.functions?.make(shape, ground.spec);
    if (made?.state !== "ready") throw new Error(made?.reason ?? "there is no snapshot");
  });
}

/** The same out of a snapshot of the booted runner without a function, which is loaded then. */
export function restoredRuntimeMode(ground: Ground): Mode {
  return modeOf("microvm-restored-runtime", ground, undefined, async (launcher, shape) => {
    await launcher.freeze(shape);
  });
}

function modeOf(
  name: string,
  ground: Ground,
  functions: FunctionSnapshotsOptions | undefined,
  before: (launcher: RestoringLauncher, shape: SandboxShape) => Promise<void>,
): Mode {
  const shape = { ...ground.shape, kind: "microvm" as const };
  const failures: Error[] = [];
  const launcher = new RestoringLauncher(ground.launcher, {
    onProblem: (error) => void failures.push(error),
    ...(functions ? { functions } : {}),
  });
  let serving: ServingSandbox | undefined;
  return {
    name,
    before: () => before(launcher, shape),
    async measured() {
      const assigned = await launcher.launch(shape, "bench", ground.bundle, ground.spec);
      // A sandbox that was booted after all is no measurement of this mode.
      if (!assigned.restored) {
        await assigned.end();
        throw failures.pop() ?? new Error("the sandbox was booted");
      }
      serving = await firstAnswer(assigned, ground);
    },
    facts: () => factsOf(serving as ServingSandbox, ground),
    async after() {
      await serving?.end();
      serving = undefined;
    },
  };
}

/** From the wish for a pristine sandbox in the place of one that has answered, to its first answer; out of a snapshot of the function. */
export function resetMode(ground: Ground): Mode {
  const shape = { ...ground.shape, kind: "microvm" as const };
  const launcher = new RestoringLauncher(ground.launcher, {
    functions: { hold: async () => ground.bundle },
  });
  let serving: ServingSandbox | undefined;
  return {
    name: "microvm-reset",
    async before() {
      if (serving?.alive) return;
      const made = await launcher.functions?.make(shape, ground.spec);
      if (made?.state !== "ready") throw new Error(made?.reason ?? "there is no snapshot");
      const assigned = await launcher.launch(shape, "bench", ground.bundle, ground.spec);
      serving = await firstAnswer(assigned, ground);
    },
    async measured() {
      if (!serving) throw new Error("there is no sandbox");
      serving = await firstAnswer(await serving.reset(), ground);
    },
    facts: () => factsOf(serving as ServingSandbox, ground),
    async close() {
      await serving?.end();
    },
  };
}

/** Unmeasured calls before the one that is measured. */
const CALLS_BEFORE_WARM = 20;

export function warmMode(ground: Ground, kind: Path): Mode {
  const shape = { ...ground.shape, kind };
  let serving: ServingSandbox | undefined;
  return {
    name: `${kind}-warm`,
    async before() {
      if (!serving?.alive)
        serving = await firstAnswer(
          await ground.launcher.launch(shape, "bench", ground.bundle),
          ground,
        );
      // The other modes have had the processors for a second; a call in a row of calls is meant, not the first after a pause.
      for (let call = 0; call < CALLS_BEFORE_WARM; call++) await answer(serving, ground);
    },
    async measured() {
      if (!serving) throw new Error("there is no sandbox");
      await answer(serving, ground);
    },
    facts: () => factsOf(serving as ServingSandbox, ground),
    async close() {
      await serving?.end();
    },
  };
}
