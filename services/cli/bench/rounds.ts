import { messageOf } from "../failure.ts";
import type { ProcessFacts } from "./process-facts.ts";

/** What a run cost, as far as its kind of sandbox tells. */
export interface RunFacts extends Partial<ProcessFacts> {
  /** Worker's and sandboxd's, by name, ms. */
  phases: Record<string, number>;
  steps: Record<string, number>;
  exits?: Record<string, number>;
  cpu_ms?: number;
  /** By the limit of its processor time. */
  held_back_ms?: number;
}

/** One thing that is measured again and again. Only `measured` is timed. */
export interface Mode {
  name: string;
  /** Makes ready what a service would have ready before the request comes. Rounds that do not count have numbers below 0. */
  before?(round: number): Promise<void>;
  /** What is timed; throws when it did not do what it should. */
  measured(): Promise<void>;
  /** What can be told of the run that was just measured, besides its time. */
  facts?(): RunFacts;
  /** Takes away what the measurement left; called also when it failed. */
  after?(): Promise<void>;
  /** At the end of the run. */
  close?(): Promise<void>;
}

/** Rounds whose times are thrown away: page cache, code of the tools themselves, code that is compiled as it gets hot. */
export const WARM_UP_ROUNDS = 3;

export interface Rounds {
  rounds: number;
  signal: AbortSignal;
  onRound(done: number, of: number): void;
}

/** What came of one mode: a time in ms for each success, a text for each failure. */
export interface Outcome {
  times: number[];
  /** The round of each of them, from 0. */
  rounds: number[];
  failures: string[];
  facts: RunFacts[];
}

/**
 * Every round runs each mode once, so that all meet the same weather; which goes first moves on by one each round, so that none is always behind the same
 * neighbour. Closes the modes. Outcomes are in the order of the modes.
 */
export async function runRounds(modes: readonly Mode[], options: Rounds): Promise<Outcome[]> {
  const outcomes: Outcome[] = modes.map(() => ({
    times: [],
    rounds: [],
    failures: [],
    facts: [],
  }));
  try {
    const all = options.rounds + WARM_UP_ROUNDS;
    for (let begun = 0; begun < all && !options.signal.aborted; begun++) {
      const round = begun - WARM_UP_ROUNDS;
      for (let index = 0; index < modes.length && !options.signal.aborted; index++) {
        const at = (index + begun) % modes.length;
        const [mode, outcome] = [modes[at], outcomes[at]];
        if (!mode || !outcome) continue;
        const result = await once(mode, round);
        if (round < 0) continue;
        if (typeof result === "string") outcome.failures.push(result);
        else {
          outcome.times.push(result.ms);
          outcome.rounds.push(round);
          if (result.facts) outcome.facts.push(result.facts);
        }
      }
      options.onRound(begun + 1, all);
    }
  } finally {
    for (const mode of modes) await mode.close?.().catch(() => {});
  }
  return outcomes;
}

/** Time of one measurement, or why it failed. */
async function once(
  mode: Mode,
  round: number,
): Promise<{ ms: number; facts: RunFacts | undefined } | string> {
  try {
    await mode.before?.(round);
    const began = performance.now();
    await mode.measured();
    const took = performance.now() - began;
    return { ms: took, facts: mode.facts?.() };
  } catch (error) {
    return messageOf(error);
  } finally {
    await mode.after?.().catch(() => {});
  }
}
