import type { Redis } from "ioredis";
import type { InvocationJob } from "#contracts/invocation";
import { NODES_INDEX, type NodeQueue, openQueue } from "./node-queue.ts";
import { Outbox, type QueuedCall } from "./outbox.ts";
import { type QueueState, queueState } from "./queue-state.ts";
import { connectRedis, disconnectRedis } from "./redis.ts";

/** The gateway's side: puts invocations in the queues of nodes. */
export class InvocationProducer {
  readonly #redis: Redis;
  readonly #onError: (error: Error) => void;
  readonly #queues = new Map<string, NodeQueue>();
  readonly #outboxes = new Map<string, Outbox>();

  constructor(redisUrl: string, onError: (error: Error) => void) {
    this.#redis = connectRedis(redisUrl, "request", onError);
    this.#onError = onError;
  }

  /** The connection, for other quick commands of the same process (heartbeats, publishing). */
  get redis(): Redis {
    return this.#redis;
  }

  /** Resolves when Redis can be used; rejects when it does not answer in a few seconds. */
  async ready(): Promise<void> {
    await this.#redis.ping();
  }

  /** Makes ready to add to the queue of a node, so that the first job need not wait for it. */
  open(nodeId: string): void {
    this.#queue(nodeId);
  }

  /**
   * Puts it in the queue of a node, with others that are on their way there. `notQueued` hears when Redis has not taken it in a few seconds; it may then
   * still be in the queue, so the caller must be ready to refuse the worker that announces it. `crowded`: the node has more than it can work on.
   */
  add(
    job: InvocationJob,
    nodeId: string,
    notQueued: (error: Error) => void,
    crowded = false,
  ): QueuedCall {
    let outbox = this.#outboxes.get(nodeId);
    if (!outbox) {
      outbox = new Outbox({
        redis: this.#redis,
        queue: () => this.#queue(nodeId),
        isOpen: () => this.#queues.has(nodeId),
        onError: this.#onError,
      });
      this.#outboxes.set(nodeId, outbox);
    }
    return outbox.add(job, notQueued, crowded);
  }

  /** Invocations waiting in the queue of one node. */
  async depth(nodeId: string): Promise<number> {
    return (await queueState(this.#queue(nodeId))).waiting;
  }

  /** The node is gone for good; its queue stays in Redis until a worker clears it (nodes.ts). */
  async forget(nodeId: string): Promise<void> {
    const queue = this.#queues.get(nodeId);
    this.#queues.delete(nodeId);
    this.#outboxes.delete(nodeId);
    await queue?.close().catch(this.#onError);
  }

  /** How the queue of each node stands that is there, or has been lately. */
  async states(): Promise<QueueState[]> {
    const nodeIds = await this.#redis.zrange(NODES_INDEX, 0, -1);
    return Promise.all(
      nodeIds.sort().map(async (nodeId) => {
        const known = this.#queues.get(nodeId);
        if (known) return queueState(known);
        const queue = openQueue(nodeId, this.#redis);
        return queueState(queue).finally(() => queue.close());
      }),
    );
  }

  async close(): Promise<void> {
    await Promise.all([...this.#queues.keys()].map((nodeId) => this.forget(nodeId)));
    await disconnectRedis(this.#redis);
  }

  #queue(nodeId: string): NodeQueue {
    const known = this.#queues.get(nodeId);
    if (known) return known;
    const queue = openQueue(nodeId, this.#redis);
    queue.on("error", this.#onError);
    this.#queues.set(nodeId, queue);
    return queue;
  }
}
