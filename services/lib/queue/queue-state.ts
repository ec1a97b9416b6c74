import type { Queue } from "bullmq";

/** How one queue stands. */
export interface QueueState {
  name: string;
  /** Jobs that no worker has taken. */
  waiting: number;
  /** Jobs that a worker serves. */
  active: number;
  /** How long the first in the queue has waited; absent when none waits. */
  oldestWaitMs?: number;
}

/** Reads it: three commands, whatever its length. */
export async function queueState(queue: Queue): Promise<QueueState> {
  const [counts, [oldest]] = await Promise.all([
    queue.getJobCounts("waiting", "active"),
    // Jobs are added at the other end of the list.
    queue.getJobs(["waiting"], 0, 0, true),
  ]);
  return {
    name: queue.name,
    waiting: counts.waiting ?? 0,
    active: counts.active ?? 0,
    ...(oldest ? { oldestWaitMs: Math.max(0, Date.now() - oldest.timestamp) } : {}),
  };
}
