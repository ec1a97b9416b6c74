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

/** The error a caller gets whose invocation was running, or about to, when the sandbox ended by itself. */
export function exitError(exit: SandboxExit, outputTail: string, memoryMb: number): CloisterError {
  const oom = (): CloisterError =>
    new CloisterError(
      "function_out_of_memory",
      `The function needed more than its ${memoryMb} MiB`,
      exit.memoryPeakBytes === undefined ? {} : { memoryPeakBytes: exit.memoryPeakBytes },
    );
  switch (exit.reason) {
    case "oom":
      return oom();
    case "signal":
      if (isAbort(exit) && HEAP_EXHAUSTED.test(outputTail)) return oom();
      return new CloisterError(
        "function_exited",
        `The function's process was ended by ${exit.signal ?? "a signal"} before it answered`,
      );
    case "exit":
      if (isAbort(exit) && HEAP_EXHAUSTED.test(outputTail)) return oom();
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

/** abort(): SIGABRT, or SIGTRAP/SIGILL where V8 breaks on purpose; pid 1 of a sandbox reports it as 128 + signal. */
function isAbort(exit: SandboxExit): boolean {
  if (exit.signal !== undefined) return /^(?:SIG)?(?:ABRT|TRAP|ILL|6|5|4)$/.test(exit.signal);
  return exit.code === 134 || exit.code === 133 || exit.code === 132;
}
