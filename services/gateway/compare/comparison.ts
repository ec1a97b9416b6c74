import type {
  CompareProgress,
  Comparison,
  ForcedStart,
  PathReport,
  StartReport,
} from "#contracts/comparison";
import type { FunctionConfig, Path, StartKind } from "#contracts/function";
import { CloisterError, type ErrorCode } from "#errors/catalogue";
import {
  distribution,
  median,
  medianInterval,
  medianRatio,
  mediansByName,
  ratioInterval,
} from "#report/statistics";
import { quotaOf } from "../quota/quota-error.ts";
import type { MeasuredAnswer } from "./measured-call.ts";

/** Rounds that do not count: code of the service and of the function is compiled, pages and snapshots are fetched and made. */
export const WARM_UP_ROUNDS = 3;
/** A call in a row of calls is meant by warm, not the first after other starts have had the processors. */
export const CALLS_BEFORE_WARM = 3;
/** A sandbox that was ended meanwhile is started anew by a call that does not count; more often than this it is a failure. */
const MOST_CALLS_UNTIL_WARM = 5;
/** Whatever is asked for ends after this, with what has been measured, ms. */
const LONGEST_MS = 15 * 60_000;

/** Errors that mean more than that this run has failed: its path or start cannot be had, or none that follows can succeed. */
const MEANS: Partial<Record<ErrorCode, RunOutcome["means"]>> = {
  isolation_unavailable: "no path",
  isolation_not_allowed: "no path",
  start_unavailable: "no start",
  draining: "end",
};

function meansOf(error: CloisterError): RunOutcome["means"] {
  if (error.code !== "quota_exceeded") return MEANS[error.code];
  const quota = quotaOf(error)?.quota;
  // Where a worker says it, no path of the tenant's is left; rates and sums are the gateway's to tell.
  return quota === undefined || quota === "paths" ? "no path" : "end";
}

export interface ComparisonPlan {
  name: string;
  version: number;
  call: string;
  config: Pick<FunctionConfig, "runtime" | "reuse">;
  n: number;
  paths: readonly Path[];
}

/** Runs one invocation; rejects with a CloisterError. */
export type RunOnce = (path: Path, start: ForcedStart | undefined) => Promise<MeasuredAnswer>;

export interface ComparisonOptions {
  run: RunOnce;
  signal: AbortSignal;
  onProgress(progress: CompareProgress): void;
}

interface Cell {
  path: Path;
  start: StartKind;
  answers: MeasuredAnswer[];
  failures: string[];
  /** It cannot be had: it is not tried again. */
  gone?: string | undefined;
}

const FORCED: ReadonlySet<StartKind> = new Set<StartKind>(["cold", "prepared", "restored"]);

/** The starts that a function has on a path. One that is never used again has no warm call; in a micro-VM it is reset instead. */
export function startsOf(path: Path, reuse: FunctionConfig["reuse"]): StartKind[] {
  const used: StartKind[] = reuse === "warm" ? ["warm"] : path === "microvm" ? ["reset"] : [];
  return ["cold", path === "microvm" ? "restored" : "prepared", ...used];
}

/**
 * Every round runs each start of each path once, so that all meet the same weather; which goes first moves on by one each round, so that none is always
 * behind the same neighbour. Nothing is trimmed, failures count as attempts, and a path or start that cannot be had is told, never replaced.
 */
export async function compare(
  plan: ComparisonPlan,
  options: ComparisonOptions,
): Promise<Comparison> {
  const startedAt = new Date();
  const began = performance.now();
  const cells: Cell[] = plan.paths.flatMap((path) =>
    startsOf(path, plan.config.reuse).map((start) => ({ path, start, answers: [], failures: [] })),
  );
  const nodes = new Set<string>();
  let invocations = 0;
  const run: RunOnce = async (path, start) => {
    invocations++;
    const answer = await options.run(path, start);
    nodes.add(answer.measured.nodeId);
    return answer;
  };
  const stopped = await runRounds(plan.n + WARM_UP_ROUNDS, cells, run, options);
  return {
    function: plan.name,
    version: plan.version,
    runtime: plan.config.runtime,
    call: plan.call,
    n: plan.n,
    warm_up_rounds: WARM_UP_ROUNDS,
    calls_before_warm: CALLS_BEFORE_WARM,
    started_at: startedAt.toISOString(),
    duration_ms: Math.round(performance.now() - began),
    invocations,
    nodes: [...nodes],
    ...(stopped === undefined ? {} : { stopped }),
    paths: plan.paths.map((path) => pathReport(path, cells)),
    ratios: ratiosOf(cells),
  };
}

/** Resolves with why it ended before the last round; undefined when it did not. */
async function runRounds(
  rounds: number,
  cells: readonly Cell[],
  run: RunOnce,
  { signal, onProgress }: ComparisonOptions,
): Promise<string | undefined> {
  const latest = performance.now() + LONGEST_MS;
  let succeeded = false;
  let firstFailure: string | undefined;
  for (let round = 0; round < rounds; round++) {
    for (let index = 0; index < cells.length; index++) {
      const cell = cells[(index + round) % cells.length] as Cell;
      if (cell.gone !== undefined) continue;
      if (performance.now() > latest)
        return `It ended after ${LONGEST_MS / 60_000} minutes, before all was measured`;
      const { answer, failure, means, error } = await measureOnce(cell, run);
      if (signal.aborted) return "It was interrupted";
      if (means === "end") {
        // Whoever may call nothing at all gets that for an answer.
        if (round === 0 && !succeeded) throw error;
        return failure;
      }
      if (means === "no path")
        for (const other of cells) if (other.path === cell.path) other.gone = failure;
      if (means === "no start") cell.gone = failure;
      if (answer) succeeded = true;
      else firstFailure ??= failure;
      if (round >= WARM_UP_ROUNDS) {
        if (answer) cell.answers.push(answer);
        else if (means === undefined && failure !== undefined) cell.failures.push(failure);
      }
      onProgress({
        done: round * cells.length + index + 1,
        of: rounds * cells.length,
        path: cell.path,
        start: cell.start,
        ...(answer ? { ms: Math.round(answer.ms * 1000) / 1000 } : {}),
        ...(failure === undefined ? {} : { failure }),
      });
    }
    if (cells.every(({ gone }) => gone !== undefined)) return undefined;
    // It fails whatever one does: that is known now, and need not be found out a thousand times.
    if (round === WARM_UP_ROUNDS - 1 && !succeeded)
      return `Every call of the first ${WARM_UP_ROUNDS} rounds failed: ${firstFailure}`;
  }
  return undefined;
}

/** An answer or a failure, and what that failure means beyond this run. */
interface RunOutcome {
  answer?: MeasuredAnswer;
  failure?: string;
  means?: "no path" | "no start" | "end" | undefined;
  error?: CloisterError;
}

async function measureOnce({ path, start }: Cell, run: RunOnce): Promise<RunOutcome> {
  const outcome = (answer: MeasuredAnswer): RunOutcome =>
    answer.status < 400
      ? { answer }
      : {
          failure: `The function answered ${answer.status}: ${answer.excerpt.replaceAll(/\s+/g, " ").slice(0, 120)}`,
        };
  try {
    if (FORCED.has(start)) return outcome(await run(path, start as ForcedStart));
    for (let call = 0; call < CALLS_BEFORE_WARM; call++) {
      const before = outcome(await run(path, undefined));
      if (before.failure !== undefined) return before;
    }
    let answer = await run(path, undefined);
    for (let again = 0; again < MOST_CALLS_UNTIL_WARM && answer.start !== start; again++)
      answer = await run(path, undefined);
    return answer.start === start
      ? outcome(answer)
      : { failure: `Its sandboxes start ${answer.start} again and again, never ${start}` };
  } catch (error) {
    if (!(error instanceof CloisterError)) throw error;
    return { failure: `${error.message} (${error.code})`, means: meansOf(error), error };
  }
}

function pathReport(path: Path, cells: readonly Cell[]): PathReport {
  const own = cells.filter((cell) => cell.path === path);
  const hopeless = own.every(({ gone, answers }) => gone !== undefined && answers.length === 0);
  const reason = hopeless ? own[0]?.gone : undefined;
  const starts = reason === undefined ? own.map(startReport) : [];
  const used = starts.find(({ start }) => start === "warm" || start === "reset") ?? starts.at(-1);
  return {
    path,
    available: reason === undefined,
    ...(reason === undefined ? {} : { reason }),
    starts,
    cpu_ms: used?.cpu_ms ?? null,
    private_kib: used?.private_kib ?? null,
    ...(used?.exits ? { exits: used.exits } : {}),
  };
}

function startReport({ start, answers, failures, gone }: Cell): StartReport {
  const times = timesOf(answers);
  const first = gone ?? failures[0];
  const exits = mediansByName(answers.map(({ measured }) => measured.exits ?? {}));
  return {
    start,
    ...distribution(times, failures.length),
    p50_interval: medianInterval(times),
    ...(first === undefined ? {} : { first_failure: first }),
    phases: mediansByName(answers.map(({ phases }) => ({ ...phases }))),
    cpu_ms: medianOf(answers.map(({ measured }) => measured.cpuMs)),
    private_kib: medianOf(answers.map(({ measured }) => measured.privateKib)),
    page_faults: medianOf(answers.map(({ measured }) => measured.pageFaults)),
    ...(Object.keys(exits).length === 0 ? {} : { exits }),
    times_ms: times,
  };
}

const timesOf = (answers: readonly MeasuredAnswer[]): number[] =>
  answers.map(({ ms }) => Math.round(ms * 1000) / 1000);

const medianOf = (values: readonly (number | undefined)[]): number | null =>
  median(values.filter((value) => value !== undefined));

/** What is alike on both paths: first starts, starts out of what was made ready, and sandboxes that have served. */
function ratiosOf(cells: readonly Cell[]): Comparison["ratios"] {
  const pairs: [StartKind, StartKind][] = [
    ["cold", "cold"],
    ["restored", "prepared"],
    ["warm", "warm"],
    ["reset", "prepared"],
  ];
  const times = (path: Path, start: StartKind): number[] | undefined => {
    const cell = cells.find((one) => one.path === path && one.start === start);
    return cell && cell.answers.length > 0 ? timesOf(cell.answers) : undefined;
  };
  return pairs.flatMap(([machine, container]) => {
    const [part, whole] = [times("microvm", machine), times("container", container)];
    if (!part || !whole) return [];
    return [
      {
        of: `microvm ${machine}`,
        to: `container ${container}`,
        ratio: medianRatio(part, whole),
        interval: ratioInterval(part, whole),
      },
    ];
  });
}
