import type { Path } from "#contracts/function";
import {
  type AssignedSandbox,
  type BootedSandbox,
  ProcessLauncher,
  type ServingSandbox,
} from "../../worker/sandbox/index.ts";
import { answer, firstAnswer } from "./first-answer.ts";
import { fromSnapshot } from "./from-snapshot.ts";
import type { Ground } from "./ground.ts";
import type { Mode } from "./rounds.ts";
import { factsOf, factsOfChildren } from "./run-facts.ts";

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
        await launcher.launch(ground.shape, "bench", ground.bundle, ground.spec),
        ground,
      );
    },
    facts: () => factsOfChildren(serving as ServingSandbox, ground),
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
      const assigned = await ground.launcher.launch(shape, "bench", ground.bundle, ground.spec);
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
export const restoredMode = (ground: Ground): Mode =>
  snapshotMode("microvm-restored", ground, "function");

/** The same out of a snapshot of the booted runner without a function, which is loaded then. */
export const restoredRuntimeMode = (ground: Ground): Mode =>
  snapshotMode("microvm-restored-runtime", ground, "runtime");

function snapshotMode(name: string, ground: Ground, of: "function" | "runtime"): Mode {
  const snapshot = fromSnapshot(ground, of);
  let serving: ServingSandbox | undefined;
  return {
    name,
    before: () => snapshot.ready(),
    async measured() {
      serving = await firstAnswer(await snapshot.launch(), ground);
    },
    facts: () => factsOf(serving as ServingSandbox, ground),
    async after() {
      await serving?.end();
      serving = undefined;
    },
  };
}

/**
 * From a call to the answer of a clone that was brought back before, and that nobody has called. It waits while all other modes have their turn, as one that
 * a worker keeps waits for its call.
 */
export function pooledMode(ground: Ground): Mode {
  const snapshot = fromSnapshot(ground, "function");
  let waiting: ServingSandbox | undefined;
  const bringBack = async (): Promise<void> => {
    await snapshot.ready();
    waiting = await (await snapshot.bringBack()).initialise(ground.init);
    await waiting.back;
  };
  return {
    name: "microvm-pooled",
    async before() {
      if (!waiting?.alive) await bringBack();
    },
    async measured() {
      if (!waiting) throw new Error("there is no clone");
      await answer(waiting, ground);
    },
    facts: () => factsOf(waiting as ServingSandbox, ground),
    async after() {
      await waiting?.end();
      await bringBack();
    },
    async close() {
      await waiting?.end();
    },
  };
}

/** From the wish for a pristine sandbox in the place of one that has answered, to its first answer; out of a snapshot of the function. */
export function resetMode(ground: Ground): Mode {
  const snapshot = fromSnapshot(ground, "function");
  let serving: ServingSandbox | undefined;
  return {
    name: "microvm-reset",
    async before() {
      if (serving?.alive) return;
      await snapshot.ready();
      serving = await firstAnswer(await snapshot.launch(), ground);
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

/** A later answer of a sandbox that was made as a service makes most of them: of a micro-VM that came out of a snapshot of the function. */
export function warmMode(ground: Ground, kind: Path): Mode {
  if (kind === "container") return bootedWarmMode(ground, kind);
  const snapshot = fromSnapshot(ground, "function");
  return laterAnswers(`${kind}-warm`, ground, async () => {
    await snapshot.ready();
    return await snapshot.launch();
  });
}

/** The same of one that booted, and has compiled no more than its calls so far made it. */
export const bootedWarmMode = (ground: Ground, kind: Path): Mode =>
  laterAnswers(kind === "container" ? "container-warm" : `${kind}-warm-booted`, ground, () =>
    ground.launcher.launch({ ...ground.shape, kind }, "bench", ground.bundle, ground.spec),
  );

function laterAnswers(name: string, ground: Ground, make: () => Promise<AssignedSandbox>): Mode {
  let serving: ServingSandbox | undefined;
  return {
    name,
    async before() {
      if (!serving?.alive) serving = await firstAnswer(await make(), ground);
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
