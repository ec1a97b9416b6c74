import { z } from "zod";

/**
 * Whether a version has a snapshot to start from: `making` until it is `ready` or `failed`; `none` when nothing makes one now. Times in ms from
 * the moment it was wanted.
 */
export const snapshotStateSchema = z.object({
  state: z.enum(["making", "ready", "failed", "none"]),
  reason: z.string().max(4096).optional(),
  bytes: z.number().int().min(0).optional(),
  ms: z.number().min(0).optional(),
});
export type SnapshotState = z.infer<typeof snapshotStateSchema>;

const RANK: Record<SnapshotState["state"], number> = { ready: 0, making: 1, failed: 2, none: 3 };

/** What several nodes together amount to: the best there is. */
export const bestOf = (states: readonly SnapshotState[]): SnapshotState | undefined =>
  [...states].sort((a, b) => RANK[a.state] - RANK[b.state])[0];
