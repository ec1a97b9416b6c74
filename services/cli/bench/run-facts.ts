import type { ServingSandbox } from "../../worker/sandbox/index.ts";
import type { Ground } from "./ground.ts";
import { heldBackMs } from "./held-back.ts";
import { companionsOf, descendantsOf, factsOfProcesses } from "./process-facts.ts";
import type { RunFacts } from "./rounds.ts";

/** Counters of a micro-VM that has done nothing. */
const NOTHING = { counters: new Uint32Array(1024), pageFaults: 0 };

/** What a sandbox of sandboxd's has cost since it began; read as root, while it is there. */
export function factsOf(serving: ServingSandbox, ground: Ground): RunFacts {
  const { exits } = serving.workSince(NOTHING);
  const cpu = serving.cpuMs();
  const made = ground.made.get(serving.id);
  const heldBack = made?.pid === undefined ? undefined : heldBackMs(made.pid);
  return {
    phases: { ...serving.phases } as Record<string, number>,
    steps: made?.steps ?? {},
    ...(exits ? { exits: { ...exits } } : {}),
    ...(cpu === undefined ? {} : { cpu_ms: cpu }),
    ...(heldBack === undefined ? {} : { held_back_ms: heldBack }),
    ...(made?.pid === undefined ? {} : factsOfProcesses(companionsOf(made.pid))),
  };
}

/** The same of a sandbox that this process has started itself, the only one there is of them. */
export function factsOfChildren(
  serving: ServingSandbox,
  ground: Ground,
  shmem?: "own" | "files",
): RunFacts {
  return {
    phases: { ...serving.phases } as Record<string, number>,
    steps: {},
    ...factsOfProcesses(descendantsOf(process.pid, ground.bystanders), shmem),
  };
}
