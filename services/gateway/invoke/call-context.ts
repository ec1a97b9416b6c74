import type { ReplyMeta } from "#contracts/invocation";
import type { LostCall } from "#contracts/lost-record";
import type { ErrorCode } from "#errors/catalogue";
import type { Tracing } from "#telemetry/tracing";
import type { Dispatcher } from "../dispatch/dispatcher.ts";
import type { Admissions } from "../quota/admissions.ts";
import type { RefusalPace } from "../quota/refusal-pace.ts";
import type { Calls, WaitingCall } from "./calls.ts";

export interface CallOutcome {
  /** Of the error it ended with; absent when the function's answer was passed on. */
  code: ErrorCode | undefined;
  durationMs: number;
  /** How it was run; absent when no answer of a sandbox came. */
  meta: ReplyMeta | undefined;
}

/** A call under way, as the gateway that drains sees it. */
export interface OpenCall extends WaitingCall {
  /** Ends it with an error, unless it has ended. */
  fail(error: unknown): void;
}

/** What a call needs of its gateway. */
export interface CallContext {
  calls: Pick<Calls<WaitingCall>, "add" | "remove">;
  dispatcher: Pick<Dispatcher, "submit" | "taken" | "answered" | "stalled" | "done">;
  admissions: Pick<Admissions, "enter" | "admit" | "refuseKnown">;
  refusals: Pick<RefusalPace, "inTurn">;
  /** Where workers bring the answers. */
  replyTo: string;
  /** Longest wait for a worker, ms. */
  queueWaitMs: number;
  draining: () => boolean;
  opened: (call: OpenCall) => void;
  closed: (call: OpenCall, outcome: CallOutcome) => void;
  /** Records an accepted call that came to an end without its worker. */
  lost: (call: LostCall, code: ErrorCode) => void;
  onProblem: (error: Error) => void;
  /** Absent when traces are off. */
  tracing?: Tracing;
}
