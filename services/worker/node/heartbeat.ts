import type { LostJobsListener } from "#queue/node-queue";
import {
  NODE_ASKED_CHANNEL,
  type NodeHeartbeat,
  nodeAskedSchema,
  removeHeartbeat,
  writeHeartbeat,
} from "#queue/nodes";
import type { Subscriber } from "#queue/pubsub";
import type { Redis } from "#queue/redis";

export interface HeartbeatOptions {
  redis: Redis;
  subscriber: Subscriber;
  nodeId: string;
  /** What is to be told now. */
  read: () => NodeHeartbeat;
  /** Hears of the jobs of nodes that died long ago. */
  lost: LostJobsListener;
  onProblem: (error: Error) => void;
}

/** A third of NODE_TTL_MS, so that two may be lost. */
const INTERVAL_MS = 3000;

/** Tells of this node: from time to time, when it is asked, and at once when something changes. */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  #timer: NodeJS.Timeout | undefined;
  #soon: NodeJS.Immediate | undefined;
  #last: Promise<void> = Promise.resolve();

  constructor(options: HeartbeatOptions) {
    this.#options = options;
  }

  /** Resolves when it has been told once, or could not be. */
  async start(): Promise<void> {
    const { subscriber, nodeId, onProblem } = this.#options;
    subscriber
      .subscribe(NODE_ASKED_CHANNEL, (message) => {
        const asked = nodeAskedSchema.safeParse(message);
        if (asked.success && asked.data.id === nodeId && this.#timer)
          void this.#tell(asked.data.question);
      })
      .catch(onProblem);
    this.#timer = setInterval(() => void this.#tell(), INTERVAL_MS);
    await this.#tell();
  }

  /** Something is other than it was told. However much changes in this turn, it is told once. */
  changed(): void {
    if (!this.#timer) return;
    this.#soon ??= setImmediate(() => {
      this.#soon = undefined;
      if (this.#timer) void this.#tell();
    });
  }

  /** Tells that the node is gone, as the last word. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    await this.#last;
    await removeHeartbeat(this.#options.redis, this.#options.nodeId).catch(this.#options.onProblem);
  }

  #tell(answers?: string): Promise<void> {
    const { redis, read, lost, onProblem } = this.#options;
    this.#last = writeHeartbeat(redis, read(), answers, lost).catch(onProblem);
    return this.#last;
  }
}
