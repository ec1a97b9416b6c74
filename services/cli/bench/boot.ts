import { existsSync } from "node:fs";
import type { Path } from "#contracts/function";
import { Failure, messageOf } from "../failure.ts";
import { type HostFacts, hostFacts } from "../host/facts.ts";
import type { BootMode } from "./boot-mode.ts";
import { type Distribution, distribution } from "./distribution.ts";
import { type Ground, layGround } from "./ground.ts";
import { coldMode, preparedMode, processMode, restoredMode, warmMode } from "./own-modes.ts";
import { bwrapMode, ociMode } from "./peer-modes.ts";

interface KnownMode {
  make?: (ground: Ground) => BootMode;
  /** Why it cannot run; undefined when it can. */
  lacks(): string | undefined;
}

const always = (): undefined => undefined;
const installed = (path: string) => (): string | undefined =>
  existsSync(path) ? undefined : `${path} is not installed`;
const notYet = { lacks: () => "snapshots of micro-VMs are not in this version" };
const own = (
  make: (ground: Ground, kind: Path) => BootMode,
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
  "microvm-pooled": notYet,
  "microvm-reset": notYet,
  "microvm-warm": own(warmMode, "microvm", kvm),
  runc: { make: (ground) => ociMode("runc", ground), lacks: installed("/usr/sbin/runc") },
  crun: { make: (ground) => ociMode("crun", ground), lacks: installed("/usr/bin/crun") },
  bwrap: { make: bwrapMode, lacks: installed("/usr/bin/bwrap") },
  runsc: { lacks: () => "runsc is not among the partners of this version" },
};
export const MODE_NAMES: readonly string[] = Object.keys(MODES);

/** Rounds whose times are thrown away: page cache, code of the tools themselves. */
export const WARM_UP_ROUNDS = 3;

export interface BootReport {
  host: HostFacts;
  warmUpRounds: number;
  modes: ({ mode: string } & Distribution)[];
  unavailable: { mode: string; reason: string }[];
  /** The first failure of each mode that had one. */
  firstFailures: Record<string, string>;
}

export interface BootOptions {
  rounds: number;
  /** All that can run, when absent. */
  modes?: string[];
  signal: AbortSignal;
  onRound(done: number, of: number): void;
}

/**
 * Every round runs each mode once, so that all meet the same weather; which goes first moves on by one each round, so that none is always behind the same
 * neighbour.
 */
export async function benchBoot(options: BootOptions): Promise<BootReport> {
  const names = options.modes ?? MODE_NAMES;
  const unavailable: BootReport["unavailable"] = [];
  const makers: ((ground: Ground) => BootMode)[] = [];
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
  const ground = await layGround();
  const times = new Map<string, number[]>();
  const failures = new Map<string, string[]>();
  let modes: BootMode[] = [];
  try {
    modes = makers.map((make) => make(ground));
    for (const { name } of modes) {
      times.set(name, []);
      failures.set(name, []);
    }
    const rounds = options.rounds + WARM_UP_ROUNDS;
    for (let round = 0; round < rounds && !options.signal.aborted; round++) {
      for (let index = 0; index < modes.length && !options.signal.aborted; index++) {
        const mode = modes[(index + round) % modes.length];
        if (!mode) continue;
        const outcome = await once(mode);
        if (round < WARM_UP_ROUNDS) continue;
        if (typeof outcome === "number") times.get(mode.name)?.push(outcome);
        else failures.get(mode.name)?.push(outcome);
      }
      options.onRound(round + 1, rounds);
    }
  } finally {
    for (const mode of modes) await mode.close?.().catch(() => {});
    await ground.close();
  }
  return {
    host: hostFacts(),
    warmUpRounds: WARM_UP_ROUNDS,
    modes: modes.map(({ name }) => ({
      mode: name,
      ...distribution(times.get(name) ?? [], failures.get(name)?.length ?? 0),
    })),
    unavailable,
    firstFailures: Object.fromEntries(
      [...failures].flatMap(([name, [first]]) => (first === undefined ? [] : [[name, first]])),
    ),
  };
}

/** Time of one measurement, ms, or why it failed. */
async function once(mode: BootMode): Promise<number | string> {
  try {
    await mode.before?.();
    const began = performance.now();
    await mode.measured();
    return performance.now() - began;
  } catch (error) {
    return messageOf(error);
  } finally {
    await mode.after?.().catch(() => {});
  }
}
