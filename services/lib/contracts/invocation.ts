import type { ForcedStart } from "./comparison.ts";
import type { Path, StartKind } from "./function.ts";

/** What the gateway puts in the queue for one invocation. Times are wall-clock ms with fractions. */
export interface InvocationJob {
  id: string;
  tenantId: string;
  functionId: string;
  /** The worker reads the immutable VersionSpec by this id and caches it. */
  versionId: string;
  kind: "http" | "event";
  head: {
    method: string;
    url: string;
    path: string;
    /** Lower-case names; hop-by-hop and Cloister's own headers are already taken out. */
    headers: [string, string][];
  };
  /** The whole body when it is at most LIMITS.inlineBodyBytes, else absent and `bodyFollows` is true. */
  body?: { text: string } | { base64: string };
  /** The body is streamed by the gateway over the reply link once the worker has announced itself. */
  bodyFollows: boolean;
  /** Where the gateway that holds the caller listens: `unix:/path` or `tcp:host:port`. */
  replyTo: string;
  acceptedAtMs: number;
  /** After this moment nobody waits any more; a worker drops the job. */
  expiresAtMs: number;
  /** The caller's `Cloister-Isolation` header, when there is one. */
  wantedPath?: Path;
  /** The caller wants its system calls in the log, as lines of the stream `trace`. */
  trace?: true;
  /** The gateway's span, where it is recorded (W3C Trace Context). */
  traceparent?: string;
  tracestate?: string;
  /** A run of a comparison, which no caller can ask for: its worker tells what it measured, and starts the sandbox in this way. */
  compare?: { start?: ForcedStart };
}

/** Phases of one invocation, ms. Absent means the phase did not happen. Names are those of Server-Timing. */
export interface Phases {
  queue_ms?: number;
  place_ms?: number;
  acquire_ms?: number;
  /** Parts of acquire. */
  create_ms?: number;
  runtime_ms?: number;
  reset_ms?: number;
  /** Until a function was back from its snapshot; the part of it in which runner and hooks renewed it. */
  restore_ms?: number;
  renew_ms?: number;
  assign_ms?: number;
  init_ms?: number;
  handler_ms?: number;
  reply_ms?: number;
}

/** Rides in the HEAD frame of the reply link as `meta`, beside the function's own status and headers. */
export interface ReplyMeta {
  path: Path;
  start: StartKind;
  version: number;
  phases: Phases;
}

export type InvocationStatus =
  | "ok"
  | "function_error"
  | "function_timeout"
  | "function_out_of_memory"
  | "function_exited"
  | "cancelled"
  | "platform_error";

/** How often a micro-VM's virtual CPUs came back: for a system call, for an exception of user code, by a kick, for want of a page. */
export interface ExitCounts {
  syscall: number;
  fault: number;
  interrupted: number;
  page_unavailable: number;
}

/** What a micro-VM did for one invocation. Invocations at once in one sandbox each count what happened meanwhile. */
export interface MachineWork {
  exits: ExitCounts;
  /** System calls by name; those that are not known by name are `other`. */
  syscalls: Record<string, number>;
  /** Time of all virtual CPUs in guest code by the clock, and of the monitor between that without sleep, ms. */
  guestMs: number;
  monitorMs: number;
}

/** One row of `invocations`. */
export interface InvocationRecord extends Partial<MachineWork> {
  id: string;
  tenantId: string;
  functionId: string;
  versionId: string;
  acceptedAtMs: number;
  finishedAtMs: number;
  status: InvocationStatus;
  /** HTTP status the function answered; absent when it did not. */
  httpStatus?: number;
  errorCode?: string;
  path?: Path;
  start?: StartKind;
  placementReasons: readonly string[];
  /** The rule that gave each of the reasons, and the version of the table they are of. */
  placementRules?: readonly string[];
  placementTable?: string;
  phases: Phases;
  durationMs: number;
  billedMs: number;
  memoryMb: number;
  cpuMs?: number;
  memoryPeakBytes?: number;
  /** Pages the kernel gave to the runner's process, or to the micro-VM's, when they were touched. */
  pageFaults?: number;
  requestBytes: number;
  responseBytes: number;
  sandboxId?: string;
  nodeId: string;
  /**
   * Written by one that saw the invocation end but did not serve it: the worker that did has died, or never had it. What it used is not
   * known, and not charged. The record of the worker that served it replaces this one, should it come.
   */
  lost?: true;
}

/** Closes the stream `trace` of an invocation. */
export const END_OF_TRACE = "[cloister] end of the trace";

/** One line (or chunk of lines) a function wrote while serving an invocation; in `trace`, what its micro-VM's monitor wrote about it. */
export interface LogEntry {
  tenantId: string;
  functionId: string;
  invocationId?: string;
  version: number;
  atMs: number;
  stream: "stdout" | "stderr" | "system" | "trace";
  text: string;
}

/** Redis pub/sub channel that carries `LogEntry[]` of one function as JSON, for `logs -f`. */
export const logChannel = (functionId: string): string => `cloister:logs:${functionId}`;

/** Redis pub/sub channel on which a gateway tells the others what to drop from their caches. */
export const CHANGES_CHANNEL = "cloister:changes";
export interface Change {
  kind: "function" | "key" | "tenant";
  id: string;
  /** A function's new version, when it was published. */
  versionId?: string;
  /** It is gone. */
  deleted?: true;
  /** A tenant that may run nothing new. */
  suspended?: true;
}
