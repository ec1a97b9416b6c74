import { CloisterError } from "#errors/catalogue";

/** Why a sandbox is gone. All but the last two come from sandboxd's `exit` event. */
export interface SandboxExit {
  reason: "exit" | "signal" | "oom" | "killed" | "setup" | "protocol" | "lost";
  code?: number;
  signal?: string;
  memoryPeakBytes?: number;
  message?: string;
}

/** What V8 and CPython print when their own heap limit ends the process before the cgroup's does. */
const HEAP_EXHAUSTED =
  /JavaScript heap out of memory|Reached heap limit|FATAL ERROR:.*(?:memory|heap)|MemoryError/i;

/** What Node and Python say when an allocation fails. */
const ALLOCATION_FAILED =
  /MemoryError|ENOMEM|out of memory|(?:cannot|could not|failed to) allocate|allocation failed/i;

export const outOfMemory = (memoryMb: number, extra: Record<string, unknown> = {}): CloisterError =>
  new CloisterError(
    "function_out_of_memory",
    `The function needed more than its ${memoryMb} MiB`,
    extra,
  );

/**
 * A function's error, as the caller is to see it: one for want of memory, after memory was refused because of the limit, is the limit's. On the
 * container path the kernel ends the function instead.
 */
export const heldAgainstLimit = (
  error: CloisterError,
  refused: boolean,
  memoryMb: number,
): CloisterError =>
  refused && ALLOCATION_FAILED.test(error.message) ? outOfMemory(memoryMb, error.extra) : error;

/**
 * The error a caller gets whose invocation was running, or about to, when the sandbox ended by itself. `refused`: a micro-VM had refused memory because
 * of the limit.
 */
export function exitError(
  exit: SandboxExit,
  outputTail: string,
  memoryMb: number,
  refused = false,
): CloisterError {
  const oom = (): CloisterError =>
    outOfMemory(
      memoryMb,
      exit.memoryPeakBytes === undefined ? {} : { memoryPeakBytes: exit.memoryPeakBytes },
    );
  const exhausted =
    (isAbort(exit) && HEAP_EXHAUSTED.test(outputTail)) ||
    (refused && (isSignal(exit) || (exit.code !== 0 && ALLOCATION_FAILED.test(outputTail))));
  switch (exit.reason) {
    case "oom":
      return oom();
    case "signal":
      if (exhausted) return oom();
      return new CloisterError(
        "function_exited",
        `The function's process was ended by ${exit.signal ?? "a signal"} before it answered`,
      );
    case "exit":
      if (exhausted) return oom();
      return new CloisterError(
        "function_exited",
        `The function's process exited with code ${exit.code ?? "unknown"} before it answered`,
      );
    case "killed":
      return new CloisterError("sandbox_failed", "The sandbox was ended before it answered");
    case "setup":
      return new CloisterError("sandbox_failed", exit.message ?? "The sandbox could not be set up");
    case "protocol":
      return new CloisterError(
        "function_bad_response",
        `The sandbox sent what no runner sends: ${exit.message ?? "unknown"}`,
      );
    case "lost":
      return new CloisterError("sandbox_failed", exit.message ?? "The sandbox was lost");
  }
}

/** Ended by a signal, which pid 1 of a sandbox reports as 128 + signal. */
const isSignal = (exit: SandboxExit): boolean => exit.reason === "signal" || (exit.code ?? 0) > 128;

/** abort(): SIGABRT, or SIGTRAP/SIGILL where V8 breaks on purpose; pid 1 of a sandbox reports it as 128 + signal. */
function isAbort(exit: SandboxExit): boolean {
  if (exit.signal !== undefined) return /^(?:SIG)?(?:ABRT|TRAP|ILL|6|5|4)$/.test(exit.signal);
  return exit.code === 134 || exit.code === 133 || exit.code === 132;
}
