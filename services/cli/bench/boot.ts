import { existsSync } from "node:fs";
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
  coldMode,
  pooledMode,
  preparedMode,
  processMode,
  resetMode,
  restoredMode,
  restoredRuntimeMode,
  warmMode,
} from "./own-modes.ts";
import { bwrapMode, ociMode } from "./peer-modes.ts";
import {
  type Mode,
  type Outcome,
  type Rounds,
  type RunFacts,
  runRounds,
  WARM_UP_ROUNDS,
} from "./rounds.ts";

interface KnownMode {
  make?: (ground: Ground) => Mode;
  /** Why it cannot run; undefined when it can. */
  lacks(): string | undefined;
}

const always = (): undefined => undefined;
const installed = (path: string) => (): string | undefined =>
  existsSync(path) ? undefined : `${path} is not installed`;
const own = (
  make: (ground: Ground, kind: Path) => Mode,
  kind: Path,
  lacks: KnownMode["lacks"],
): KnownMode => ({ make: (ground) => make(ground, kind), lacks });
const kvm = installed("/dev/kvm");

const MODES: Record<string, KnownMode> = {
  process: { make: processMode, lacks: always },
  "container-cold": own(coldMode, "container", always),
  "container-prepared": own(preparedMode, "container", always),
  "container-warm": own(warmMode, "container", always),
  "microvm-cold": own(coldMode, "microvm", kvm),
  "microvm-prepared": own(preparedMode, "microvm", kvm),
  "microvm-restored": own(restoredMode, "microvm", kvm),
  "microvm-restored-runtime": own(restoredRuntimeMode, "microvm", kvm),
  "microvm-pooled": own(pooledMode, "microvm", kvm),
  "microvm-reset": own(resetMode, "microvm", kvm),
  "microvm-warm": own(warmMode, "microvm", kvm),
  runc: { make: (ground) => ociMode("runc", ground), lacks: installed("/usr/sbin/runc") },
  crun: { make: (ground) => ociMode("crun", ground), lacks: installed("/usr/bin/crun") },
  bwrap: { make: bwrapMode, lacks: installed("/usr/bin/bwrap") },
  runsc: { lacks: () => "runsc is not among the partners of this version" },
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
  const makers: ((ground: Ground) => Mode)[] = [];
  for (const name of names) {
    const reason = MODES[name]?.lacks();
    const make = MODES[name]?.make;
    if (reason !== undefined || !make)
      unavailable.push({ mode: name, reason: reason ?? "unknown" });
    else makers.push(make);
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
