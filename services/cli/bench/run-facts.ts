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
  const switches = contextSwitchesOf(ground.made.get(serving.id)?.pid);
  return {
    phases: { ...serving.phases } as Record<string, number>,
    steps: ground.made.get(serving.id)?.steps ?? {},
    ...(exits ? { exits: { ...exits } } : {}),
    ...(pageFaults === undefined ? {} : { page_faults: pageFaults }),
    ...(cpu === undefined ? {} : { cpu_ms: cpu }),
    ...(memory === undefined ? {} : { private_kib: memory }),
    ...(switches === undefined ? {} : { context_switches: switches }),
  };
}

/** Of all threads of the sandbox's processes, those it was made of as well. Threads that have ended are not counted. */
function contextSwitchesOf(pid: number | undefined): number | undefined {
  if (pid === undefined) return undefined;
  let switches = 0;
  try {
    for (const one of companionsOf(pid))
      for (const thread of readdirSync(`/proc/${one}/task`)) {
        const status = readFileSync(`/proc/${one}/task/${thread}/status`, "latin1");
        for (const [, count] of status.matchAll(/^(?:non)?voluntary_ctxt_switches:\s+(\d+)$/gm))
          switches += Number(count);
      }
  } catch {
    // It has ended by itself.
    return undefined;
  }
  return switches;
}

/** All processes of a sandbox: those in its control group. */
function companionsOf(pid: number): string[] {
  const own = sandboxGroupOf(pid);
  if (own === undefined) return [];
  return readdirSync("/proc").filter((one) => /^\d+$/.test(one) && sandboxGroupOf(one) === own);
}

function sandboxGroupOf(pid: number | string): string | undefined {
  try {
    return /\/cloister-[0-9a-f]{8}\/[^/\n]+/.exec(
      readFileSync(`/proc/${pid}/cgroup`, "latin1"),
    )?.[0];
  } catch {
    return undefined;
  }
}
