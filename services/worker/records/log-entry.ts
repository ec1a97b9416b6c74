import type { VersionSpec } from "#contracts/function";
import type { LogEntry } from "#contracts/invocation";

/** What a function has said, as its log keeps it. */
export const logEntryOf = (
  { tenantId, functionId, version }: VersionSpec,
  stream: LogEntry["stream"],
  text: string,
  invocationId?: string,
): LogEntry => ({
  tenantId,
  functionId,
  ...(invocationId === undefined ? {} : { invocationId }),
  version,
  atMs: Date.now(),
  stream,
  text: text.endsWith("\n") ? text.slice(0, -1) : text,
});
