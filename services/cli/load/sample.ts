import { z } from "zod";
import { pathSchema, startKindSchema } from "#contracts/function";

const atMs = z.number();
const shortText = z.string().max(200);

/** One request and what became of it, as loadtests/lib/call.ts tells. */
export const sampleSchema = z.object({
  /** When it was sent, ms after the beginning of the run. */
  atMs,
  /** How late k6 was with a request of an open stream, if none of its stream was dropped before, ms. */
  lateMs: z.number().nullable(),
  target: shortText,
  /** Or its step. */
  stream: shortText,
  tag: shortText.nullable(),
  /** As the scenario names it. */
  function: shortText,
  outcome: z.enum(["ok", "refused", "failed"]),
  /** Why it failed, in few words, so that the like are counted together. */
  reason: shortText.nullable(),
  /** Nobody was there. */
  lost: z.boolean(),
  /** From the answer's Cloister-Isolation and Cloister-Start; an answer that no sandbox gave has none. */
  path: pathSchema.nullable(),
  start: startKindSchema.nullable(),
  firstByteMs: z.number().nullable(),
  /** From when a connection was asked for to the last byte. */
  totalMs: z.number(),
});
export type Sample = z.infer<typeof sampleSchema>;

/** One service that was called, as the scripts name it. */
export const targetSchema = z.object({
  label: shortText,
  url: z.string(),
  /** What the names of this run's functions begin with. */
  prefix: shortText,
  /** Ids of the tenants that the run has made. */
  tenants: z.array(shortText),
});
export type Target = z.infer<typeof targetSchema>;

/** Why a run ended before its time. */
export interface EarlyEnd {
  atMs: number;
  why: "interrupted" | "service-lost" | "too-many-requests" | "k6-ended";
  /** What k6 said. */
  said?: string;
}

export interface Run {
  targets: readonly Target[];
  beganAt: Date;
  samples: Sample[];
  /** By stream: requests that it should have sent while as many as it may have were under way. */
  dropped: ReadonlyMap<string, number>;
  /** Of all that k6 sent and received, with heads, bytes. */
  bytes: { sent: number; received: number };
  elapsedMs: number;
  early: EarlyEnd | undefined;
}
