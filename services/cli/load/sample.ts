import type { Path, StartKind } from "#contracts/function";

/** One request and what became of it. */
export interface Sample {
  /** When it was sent, ms after the beginning of the run. */
  atMs: number;
  target: string;
  stream: string;
  tag: string | undefined;
  /** As the scenario names it. */
  function: string;
  outcome: "ok" | "refused" | "failed";
  /** Why it failed, in few words, so that the like are counted together. */
  reason: string | undefined;
  status: number | undefined;
  /** From the answer's Cloister-Isolation and Cloister-Start; an answer that no sandbox gave has none. */
  path: Path | undefined;
  start: StartKind | undefined;
  firstByteMs: number | undefined;
  /** From sending to the last byte. */
  totalMs: number;
  bytesIn: number;
  bytesOut: number;
}

/** Requests that a stream should have sent while as many as it may have were under way. */
export interface Dropped {
  atMs: number;
  target: string;
  stream: string;
}

/** Why a run ended before its time. */
export interface EarlyEnd {
  atMs: number;
  why: "interrupted" | "service-lost" | "too-many-requests";
}

export interface Run {
  samples: Sample[];
  dropped: Dropped[];
  /** How late requests of open streams were sent, ms: what the generator itself is guilty of. */
  lateMs: number[];
  elapsedMs: number;
  early: EarlyEnd | undefined;
}
