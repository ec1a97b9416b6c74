import { readdirSync, readFileSync } from "node:fs";
import type { ServingSandbox } from "../../worker/sandbox/index.ts";
import type { Ground } from "./ground.ts";
import type { RunFacts } from "./rounds.ts";

/** Counters of a micro-VM that has done nothing. */
const NOTHING = { counters: new Uint32Array(1024), pageFaults: 0 };

/** What a sandbox has cost since it began; read as root, while it is there. */
export function factsOf(serving: ServingSandbox, ground: Ground): RunFacts {
  const { exits, pageFaults } = serving.workSince(NOTHING);
  const [cpu, memory] = [serving.cpuMs(), serving.privateKib()];
  const switches = contextSwitchesOf(serving.id, ground);
  return {
    phases: { ...serving.phases } as Record<string, number>,
    steps: ground.steps.get(serving.id) ?? {},
    ...(exits ? { exits: { ...exits } } : {}),
    ...(pageFaults === undefined ? {} : { page_faults: pageFaults }),
    ...(cpu === undefined ? {} : { cpu_ms: cpu }),
    ...(memory === undefined ? {} : { private_kib: memory }),
    ...(switches === undefined ? {} : { context_switches: switches }),
  };
}

/** Of all threads of the sandbox's processes, those it was made of as well. Threads that have ended are not counted. */
function contextSwitchesOf(id: string, ground: Ground): number | undefined {
  let switches = 0;
  try {
    for (const pid of processesOf(id, ground))
      for (const thread of readdirSync(`/proc/${pid}/task`)) {
        const status = readFileSync(`/proc/${pid}/task/${thread}/status`, "latin1");
        for (const [, count] of status.matchAll(/^(?:non)?voluntary_ctxt_switches:\s+(\d+)$/gm))
          switches += Number(count);
      }
  } catch {
    // It has ended by itself.
    return undefined;
  }
  return switches === 0 ? undefined : switches;
}

/** Processes whose control group is the sandbox's. */
function processesOf(id: string, ground: Ground): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const groups = readFileSync(`/proc/${pid}/cgroup`, "latin1");
      return groups.includes(`cloister-${ground.sandboxd.instance}/`) && groups.includes(id);
    } catch {
      return false;
    }
  });
}
