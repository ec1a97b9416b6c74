import type { ErrorCode } from "#errors/catalogue";
import type { InvocationJob, InvocationRecord } from "./invocation.ts";

/** What is known of a call by one that did not serve it. */
export type LostCall = Pick<
  InvocationJob,
  "id" | "tenantId" | "functionId" | "versionId" | "acceptedAtMs"
>;

/** Wall clock in ms with fractions, as records have it. */
const wallMs = (): number => performance.timeOrigin + performance.now();

/**
 * The record of a call that came to an end without a worker that could tell of it. It counts as an invocation and charges nothing: what it may
 * have used is not known, and that is not the caller's fault.
 */
export const lostRecord = (
  call: LostCall,
  errorCode: ErrorCode,
  nodeId: string,
): InvocationRecord => ({
  id: call.id,
  tenantId: call.tenantId,
  functionId: call.functionId,
  versionId: call.versionId,
  acceptedAtMs: call.acceptedAtMs,
  finishedAtMs: wallMs(),
  status: errorCode === "invocation_cancelled" ? "cancelled" : "platform_error",
  errorCode,
  placementReasons: [],
  phases: {},
  durationMs: 0,
  billedMs: 0,
  memoryMb: 0,
  requestBytes: 0,
  responseBytes: 0,
  nodeId,
  lost: true,
});
