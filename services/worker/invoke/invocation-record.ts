import type { InvocationJob, InvocationRecord } from "#contracts/invocation";
import type { Placement, Refusal } from "#contracts/placement";
import { recordedPlacement } from "../placement/placer.ts";
import { round } from "./clock.ts";
import type { InvocationOutcome } from "./context.ts";

/** What a record tells beyond the outcome. */
export interface RecordedFacts {
  httpStatus: number | undefined;
  explained: Placement | Refusal | undefined;
  memoryMb: number;
  requestBytes: number;
  responseBytes: number;
  sandboxId: string | undefined;
  nodeId: string;
  /** Wall clock, ms with fractions. */
  finishedAtMs: number;
}

/** The record of a call that this worker served, refused or lost. */
export function recordOf(
  job: InvocationJob,
  { work, ...outcome }: InvocationOutcome,
  { httpStatus, explained, sandboxId, ...facts }: RecordedFacts,
): InvocationRecord {
  const { status, errorCode, path, start, phases, durationMs, cpuMs, memoryPeakBytes } = outcome;
  return {
    id: job.id,
    tenantId: job.tenantId,
    functionId: job.functionId,
    versionId: job.versionId,
    acceptedAtMs: job.acceptedAtMs,
    finishedAtMs: facts.finishedAtMs,
    status,
    ...(httpStatus === undefined ? {} : { httpStatus }),
    ...(errorCode === undefined ? {} : { errorCode }),
    ...(path === undefined ? {} : { path }),
    ...(start === undefined ? {} : { start }),
    ...recordedPlacement(explained),
    phases,
    durationMs,
    billedMs: Math.ceil(durationMs + (phases.init_ms ?? 0)),
    memoryMb: facts.memoryMb,
    ...(cpuMs === undefined ? {} : { cpuMs: round(cpuMs) }),
    ...(memoryPeakBytes === undefined ? {} : { memoryPeakBytes }),
    requestBytes: facts.requestBytes,
    responseBytes: facts.responseBytes,
    ...(sandboxId === undefined ? {} : { sandboxId }),
    nodeId: facts.nodeId,
    ...work,
  };
}
