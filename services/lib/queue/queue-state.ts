import { callsIn, type NodeQueue } from "./node-queue.ts";

/** How one queue stands. */
export interface QueueState {
  name: string;
  /** Invocations that no worker has taken. */
  waiting: number;
  /** Invocations that a worker has taken, until the last one of their job has ended. */
  active: number;
  /** How long the first in the queue has waited; absent when none waits. */
  oldestWaitMs?: number;
}

/** Reads it. A queue is as long as its node has places, at most. */
export async function queueState(queue: NodeQueue): Promise<QueueState> {
  const [waiting, active, [oldest]] = await Promise.all([
    queue.getRanges(["wait"], 0, -1),
    queue.getRanges(["active"], 0, -1),
    // Jobs are added at the other end of the list.
    queue.getJobs(["waiting"], 0, 0, true),
  ]);
  return {
    name: queue.name,
    waiting: sum(waiting),
    active: sum(active),
    ...(oldest ? { oldestWaitMs: Math.max(0, Date.now() - oldest.timestamp) } : {}),
  };
}

const sum = (ids: readonly string[]): number => ids.reduce((calls, id) => calls + callsIn(id), 0);
