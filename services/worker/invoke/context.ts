import type { Path, StartKind, VersionSpec } from "#contracts/function";
import type {
  InvocationRecord,
  InvocationStatus,
  LogEntry,
  MachineWork,
  Phases,
} from "#contracts/invocation";
import type { ErrorCode } from "#errors/catalogue";
import type { Tracing } from "#telemetry/tracing";
import type { Placer } from "../placement/placer.ts";
import type { PolicyCache } from "../placement/policy-cache.ts";
import type { ForcedStarts } from "../pool/forced-starts.ts";
import type { SandboxPool } from "../pool/sandbox-pool.ts";
import type { ReplyLinks } from "../reply/reply-links.ts";

/** What an invocation needs of its worker. */
export interface InvocationContext {
  nodeId: string;
  pool: Pick<SandboxPool, "acquire">;
  /** For comparisons. */
  forced?: Pick<ForcedStarts, "acquire">;
  links: Pick<ReplyLinks, "get">;
  versions: {
    cached(versionId: string): VersionSpec | undefined;
    load(versionId: string): Promise<VersionSpec>;
  };
  policies: Pick<PolicyCache, "cached" | "load">;
  placer: Pick<Placer, "place" | "started">;
  records: { record(record: InvocationRecord): void; log(entry: LogEntry): void };
  /** Longest wait for a sandbox, counted from when the gateway accepted the request, ms. */
  queueWaitMs: number;
  finished?: (outcome: InvocationOutcome) => void;
  onProblem?: (error: Error) => void;
  /** Absent when traces are off. */
  tracing?: Tracing;
}

export interface InvocationOutcome {
  status: InvocationStatus;
  start: StartKind | undefined;
  phases: Phases;
  errorCode: ErrorCode | undefined;
  durationMs: number;
  path: Path | undefined;
  /** OpenTelemetry's `faas.trigger`. */
  trigger: "http" | "other";
  /** From asking for the sandbox that served to when the function could see the call. */
  initMs: number | undefined;
  cpuMs: number | undefined;
  memoryPeakBytes: number | undefined;
  /** What of this the sandbox's path tells. */
  work: Partial<MachineWork> & { pageFaults?: number };
}
