import type { VersionSpec } from "#contracts/function";
import type { LogEntry } from "#contracts/invocation";
import { Invocation } from "../invoke/invocation.ts";
import type { AssignedSandbox, SandboxObserver } from "../sandbox/index.ts";
import { logEntryOf } from "./log-entry.ts";

/** Output outside invocations that is kept of one sandbox in a minute, characters. */
const MAX_CHARS = 1024 * 1024;
const PERIOD_MS = 60_000;

/**
 * Where output goes that came outside an invocation's own frames: to the one invocation that runs when there is exactly
 * one, else to the function's log.
 */
export function logsOf(
  sandbox: AssignedSandbox,
  spec: VersionSpec,
  records: { log(entry: LogEntry): void },
): SandboxObserver {
  let left = MAX_CHARS;
  let began = performance.now();
  return {
    output(fd, text) {
      const now = performance.now();
      if (now - began > PERIOD_MS) {
        began = now;
        left = MAX_CHARS;
      }
      if (left <= 0) return;
      left -= text.length;
      const cut = left < 0 ? `${text.slice(0, left)}\n[cloister] log truncated after 1 MiB` : text;
      const handler = sandbox.soleHandler;
      if (handler instanceof Invocation) {
        handler.output(fd, cut);
        return;
      }
      records.log(logEntryOf(spec, fd === 1 ? "stdout" : "stderr", cut));
    },
  };
}
