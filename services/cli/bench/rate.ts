import { type Distribution, distribution } from "#report/statistics";
import type { ServingSandbox } from "../../worker/sandbox/index.ts";
import { messageOf } from "../failure.ts";
import { type HostFacts, hostFacts } from "../host/facts.ts";
import { firstAnswer } from "./first-answer.ts";
import { fromSnapshot } from "./from-snapshot.ts";
import { type Ground, HELLO, type HelloRuntime, layGround } from "./ground.ts";
import { processorMs } from "./processor-time.ts";

/** So many turns each has, so that all runtimes meet the same weather. */
const TURNS = 5;
/** Micro-VMs of a turn that is not counted. */
const WARM_UP = 32;

export interface RateReport {
  host: HostFacts;
  clients: number;
  rates: ({
    runtime: HelloRuntime;
    /** Micro-VMs that were made, have answered and have ended, per second of the whole run. */
    per_second: number | null;
    /** Processor time for each, of the tool, sandboxd and the sandboxes, ms. */
    cpu_ms_each: number | null;
  } & Distribution)[];
  /** The first failure of each runtime that had one. */
  firstFailures: Record<string, string>;
}

export interface RateOptions {
  runtimes: readonly HelloRuntime[];
  /** Micro-VMs of each runtime. */
  count: number;
  clients: number;
  signal: AbortSignal;
  onProgress(text: string): void;
}

interface Measured {
  readonly runtime: HelloRuntime;
  readonly ground: Ground;
  launch(): Promise<ServingSandbox>;
  readonly times: number[];
  readonly failures: string[];
  elapsedMs: number;
  cpuMs: number;
}

/**
 * How many micro-VMs a second come out of a snapshot when so many clients each want one after the other: a fresh process and machine, the first answer, and
 * its end, which nobody waits for but which has to be done before the run is over.
 */
export async function benchRate(options: RateOptions): Promise<RateReport> {
  const { runtimes, count, clients, signal, onProgress } = options;
  const all: Measured[] = [];
  try {
    for (const runtime of runtimes) all.push(await measuredOf(runtime));
    for (const one of all) await turn(one, WARM_UP, clients, signal);
    for (const one of all)
      Object.assign(one, { elapsedMs: 0, cpuMs: 0 }).times.length = one.failures.length = 0;
    for (let done = 1; done <= TURNS && !signal.aborted; done++) {
      for (const one of all)
        await turn(one, share(count, done) - share(count, done - 1), clients, signal);
      onProgress(`${share(count, done)} of ${count} of each runtime`);
    }
  } finally {
    for (const { ground } of all) await ground.close();
  }
  return {
    host: hostFacts(),
    clients,
    rates: all.map(({ runtime, times, failures, elapsedMs, cpuMs }) => ({
      runtime,
      per_second: each(times.length * 1000, elapsedMs),
      cpu_ms_each: each(cpuMs, times.length + failures.length),
      ...distribution(times, failures.length),
    })),
    firstFailures: Object.fromEntries(
      all.flatMap(({ runtime, failures: [first] }) =>
        first === undefined ? [] : [[runtime, first]],
      ),
    ),
  };
}

const share = (count: number, turns: number): number => Math.round((count * turns) / TURNS);
const each = (sum: number, count: number): number | null =>
  count > 0 ? Math.round((sum / count) * 100) / 100 : null;

async function measuredOf(runtime: HelloRuntime): Promise<Measured> {
  const ground = await layGround(HELLO[runtime]);
  const snapshot = fromSnapshot(ground, "function");
  try {
    await snapshot.ready();
  } catch (error) {
    await ground.close();
    throw error;
  }
  return {
    runtime,
    ground,
    launch: async () => firstAnswer(await snapshot.launch(), ground),
    times: [],
    failures: [],
    elapsedMs: 0,
    cpuMs: 0,
  };
}

async function turn(
  one: Measured,
  count: number,
  clients: number,
  signal: AbortSignal,
): Promise<void> {
  const ends: Promise<void>[] = [];
  let left = count;
  const before = processorMs(one.ground);
  const beganMs = performance.now();
  const client = async (): Promise<void> => {
    while (left-- > 0 && !signal.aborted) {
      const askedMs = performance.now();
      try {
        const serving = await one.launch();
        one.times.push(performance.now() - askedMs);
        ends.push(serving.end());
      } catch (error) {
        one.failures.push(messageOf(error));
      }
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  await Promise.all(ends);
  one.elapsedMs += performance.now() - beganMs;
  one.cpuMs += processorMs(one.ground) - before;
}
