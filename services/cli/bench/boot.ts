import type { Path } from "#contracts/function";
import {
  type Distribution,
  distribution,
  type Interval,
  medianInterval,
  mediansByName,
} from "#report/statistics";
import { Failure } from "../failure.ts";
import { type HostFacts, hostFacts } from "../host/facts.ts";
import { type Ground, HELLO, type HelloRuntime, layGround } from "./ground.ts";
import {
  bootedWarmMode,
  coldMode,
  pooledMode,
  preparedMode,
  resetMode,
  restoredMode,
  restoredRuntimeMode,
  warmMode,
} from "./own-modes.ts";
import { type Ability, PEER_ABILITIES, where } from "./peer-abilities.ts";
import {
  type Mode,
  type Outcome,
  type Rounds,
  type RunFacts,
  runRounds,
  WARM_UP_ROUNDS,
} from "./rounds.ts";

const own = (make: (ground: Ground, kind: Path) => Mode, kind: Path) => (): Ability => {
  const made = (ground: Ground): Mode => make(ground, kind);
  return kind === "microvm" ? where("/dev/kvm", made) : { make: made };
};
const { process: bare, ...others } = PEER_ABILITIES;

const MODES: Record<string, () => Ability | Promise<Ability>> = {
  process: bare,
  "container-cold": own(coldMode, "container"),
  "container-prepared": own(preparedMode, "container"),
  "container-warm": own(warmMode, "container"),
  "microvm-cold": own(coldMode, "microvm"),
  "microvm-prepared": own(preparedMode, "microvm"),
  "microvm-restored": own(restoredMode, "microvm"),
  "microvm-restored-runtime": own(restoredRuntimeMode, "microvm"),
  "microvm-pooled": own(pooledMode, "microvm"),
  "microvm-reset": own(resetMode, "microvm"),
  "microvm-warm": own(warmMode, "microvm"),
  "microvm-warm-booted": own(bootedWarmMode, "microvm"),
  ...others,
};
export const MODE_NAMES: readonly string[] = Object.keys(MODES);

/** Times of a mode, and medians of what its sandboxes tell; absent where nobody tells. */
export interface ModeReport extends Distribution {
  mode: string;
  p50_interval: Interval | null;
  /** All of them, as they came. */
  times_ms: number[];
  /** Worker's phases and sandboxd's steps within the making of a sandbox, ms. */
  phases: Record<string, number>;
  steps: Record<string, number>;
  exits?: Record<string, number>;
  /** Of the whole life of the sandbox until its answer, what was made ready before included. */
  page_faults?: number;
  cpu_ms?: number;
  /** By the limit of its processor time. */
  held_back_ms?: number;
  context_switches?: number;
  private_kib?: number;
  shared_kib?: number;
  /** Kinds of namespace that are the sandbox's own. */
  namespaces?: string[];
}

export interface BootReport {
  host: HostFacts;
  warmUpRounds: number;
  modes: ModeReport[];
  unavailable: { mode: string; reason: string }[];
  /** What a reader must know of a mode here beside its numbers. */
  remarks: { mode: string; remark: string }[];
  /** The first failure of each mode that had one. */
  firstFailures: Record<string, string>;
}

export interface BootOptions extends Rounds {
  /** All that can run, when absent. */
  modes?: string[];
  /** What the function is written for. */
  runtime: HelloRuntime;
}

/** Measures each mode `rounds` times. */
export async function benchBoot(options: BootOptions): Promise<BootReport> {
  const names = options.modes ?? MODE_NAMES;
  const unavailable: BootReport["unavailable"] = [];
  const remarks: BootReport["remarks"] = [];
  const makers: ((ground: Ground) => Mode)[] = [];
  for (const mode of names) {
    const ability = (await MODES[mode]?.()) ?? { lack: "unknown" };
    if ("lack" in ability) unavailable.push({ mode, reason: ability.lack });
    else makers.push(ability.make);
    if ("remark" in ability && ability.remark !== undefined)
      remarks.push({ mode, remark: ability.remark });
  }
  if (makers.length === 0) {
    const reasons = unavailable.map(({ mode, reason }) => `${mode}: ${reason}`);
    throw new Failure(
      `None of these modes can run (${reasons.join("; ")}).`,
      "Choose others with --modes.",
    );
  }
  const ground = await layGround(HELLO[options.runtime]);
  const modes = makers.map((make) => make(ground));
  let outcomes: Outcome[];
  try {
    outcomes = await runRounds(modes, options);
  } finally {
    await ground.close();
  }
  const named = modes.map(({ name }, index) => {
    return { name, ...(outcomes[index] as Outcome) };
  });
  return {
    host: hostFacts(),
    warmUpRounds: WARM_UP_ROUNDS,
    modes: named.map(({ name, times, failures, facts }) => ({
      mode: name,
      ...distribution(times, failures.length),
      p50_interval: medianInterval(times),
      times_ms: times.map((ms) => Math.round(ms * 1000) / 1000),
      ...mediansOfFacts(facts),
    })),
    unavailable,
    remarks,
    firstFailures: Object.fromEntries(
      named.flatMap(({ name, failures: [first] }) => (first === undefined ? [] : [[name, first]])),
    ),
  };
}

const COUNTS = [
  "page_faults",
  "cpu_ms",
  "held_back_ms",
  "context_switches",
  "private_kib",
  "shared_kib",
] as const;

function mediansOfFacts(
  facts: readonly RunFacts[],
): Pick<ModeReport, "phases" | "steps" | "exits" | "namespaces" | (typeof COUNTS)[number]> {
  const exits = mediansByName(facts.map((one) => one.exits ?? {}));
  const counts = mediansByName(
    facts.map((one) => Object.fromEntries(COUNTS.map((name) => [name, one[name]]))),
  );
  return {
    phases: mediansByName(facts.map((one) => one.phases)),
    steps: mediansByName(facts.map((one) => one.steps)),
    ...(Object.keys(exits).length > 0 ? { exits } : {}),
    ...counts,
    ...(facts[0]?.namespaces ? { namespaces: facts[0].namespaces } : {}),
  };
}
