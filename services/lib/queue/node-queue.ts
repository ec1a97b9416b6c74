import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import type { InvocationJob } from "#contracts/invocation";
import { AddingBackend } from "./adding-backend.ts";

export const PREFIX = "cloister";
export const JOB_NAME = "invoke";

/** Nobody reads BullMQ's event stream and it cannot be switched off: keep it at its smallest. */
const EVENTS_KEPT = 1;

/** Sorted set of the ids of nodes that have a queue, by time of last heartbeat, so that finding the nodes never scans the key space. */
export const NODES_INDEX = "cloister:nodes";

/**
 * Each node has a queue of its own, and its worker takes from that one only. Which node a job goes to is decided where the job comes from, so a
 * worker pays for one blocking connection whatever it can do, and its concurrency counts all it does (docs/adr/0002-queues-of-nodes.md).
 */
export const queueOf = (nodeId: string): string => `invocations.${nodeId}`;

/** A job is one or more invocations that came about together and share nothing but their way (docs/adr/0003-batches.md). */
export type Invocations = readonly InvocationJob[];
export type NodeQueue = Queue<Invocations, void, typeof JOB_NAME>;

let batches = 0;

/** The id of a job, never given twice: a job of the same invocations may be on its way out of a queue. It tells how many they are. */
export const batchId = (calls: Invocations): string =>
  `${calls[0]?.id}.${++batches}.${calls.length}`;

/** How many invocations a job is. */
export const callsIn = (id: string): number => Number(id.slice(id.lastIndexOf(".") + 1));

export const openQueue = (nodeId: string, redis: Redis): NodeQueue =>
  new Queue(
    queueOf(nodeId),
    {
      connection: redis,
      prefix: PREFIX,
      streams: { events: { maxLen: EVENTS_KEPT } },
    },
    (name, options) => new AddingBackend(name, options, redis),
  );

/** Hears of jobs that died with their node and are never run again. */
export type LostJobsListener = (jobs: Invocations) => void;

/** Removes all that is left in Redis of the queue of a node that died, and tells of its jobs before. Nobody may wait for them any more. */
export async function clearQueue(
  redis: Redis,
  nodeId: string,
  lost?: LostJobsListener,
): Promise<void> {
  const queue = openQueue(nodeId, redis);
  try {
    if (lost) {
      const jobs = await queue.getJobs(["active", "waiting"]);
      if (jobs.length > 0) lost(jobs.flatMap(({ data }) => data));
    }
    await queue.obliterate({ force: true });
  } finally {
    await queue.close();
  }
}
