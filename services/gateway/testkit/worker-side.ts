import type { InvocationJob } from "#contracts/invocation";
import { InvocationConsumer } from "#queue/invocation-consumer";
import {
  NODE_ASKED_CHANNEL,
  type NodeHeartbeat,
  nodeAskedSchema,
  nodeHeartbeatSchema,
  removeHeartbeat,
  writeHeartbeat,
} from "#queue/nodes";
import { Publisher, Subscriber } from "#queue/pubsub";
import { connectRedis, disconnectRedis, type Redis } from "#queue/redis";
import { answerInquiries } from "#queue/sandbox-inquiry";
import type { ReplyStream } from "../../worker/reply/reply-link.ts";
import { ReplyLinks } from "../../worker/reply/reply-links.ts";

/** One invocation as a function of a test meets it. */
export interface Served {
  job: InvocationJob;
  reply: ReplyStream;
  /** The request body, whole. */
  body: Promise<Buffer>;
  /** The next piece of the body, with credit given back; undefined at its end. */
  read: () => Promise<Buffer | undefined>;
  /** Resolves when the caller is gone, or the link. */
  gone: Promise<void>;
  /** Sends all of `bytes` as the window allows; false when the caller has gone. */
  write: (bytes: Buffer) => Promise<boolean>;
  /** Waits until more may be sent. */
  credit: () => Promise<void>;
}

export type Behaviour = (served: Served) => Promise<void>;

const META = {
  path: "container" as const,
  start: "warm" as const,
  version: 1,
  phases: { queue_ms: 0.1, acquire_ms: 0.2, handler_ms: 0.3 },
};

/** An answer head as a worker sends it. */
export const headOf = (status: number, headers: [string, string][] = [], meta: object = {}) => ({
  status,
  headers,
  meta: { ...META, ...meta },
});

/** A whole answer. */
export const answers =
  (status: number, headers: [string, string][] = [], text = ""): Behaviour =>
  async ({ reply }) => {
    reply.head(headOf(status, headers));
    if (text !== "") reply.sendData(Buffer.from(text));
    reply.end({ handlerMs: 1 });
  };

/** The worker's end: the real queue and the real reply link, with functions that the test plays. Behaviours go by the path that is called. */
export class WorkerSide {
  readonly behaviours = new Map<string, Behaviour>();
  readonly jobs: InvocationJob[] = [];
  readonly #running = new Set<InvocationJob>();
  readonly #idle: (() => void)[] = [];
  readonly #subscriber: Subscriber;
  readonly #publisher: Publisher;
  readonly #consumer: InvocationConsumer;
  readonly #links: ReplyLinks;
  readonly #redis: Redis;
  readonly #nodeId: string;
  #beat: NodeHeartbeat;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(redisUrl: string, secret: string, nodeId = "node_test") {
    this.#nodeId = nodeId;
    this.#redis = connectRedis(redisUrl, "request");
    this.#subscriber = new Subscriber(redisUrl);
    this.#publisher = new Publisher(this.#redis);
    this.#consumer = new InvocationConsumer(redisUrl, nodeId, () => {});
    this.#links = new ReplyLinks({ nodeId, secret });
    this.#beat = nodeHeartbeatSchema.parse({
      id: nodeId,
      pid: process.pid,
      atMs: Date.now(),
      startedAtMs: Date.now(),
      draining: false,
      sandboxd: true,
      kinds: ["container"],
      images: {},
      memoryMb: 1024,
      memoryReservedMb: 0,
      invocations: 0,
      concurrency: 100,
      warm: 0,
      busy: 0,
      prepared: 0,
    });
  }

  /** Takes jobs and tells so, as a worker does; `change` is what it tells otherwise. */
  async start(change: Partial<NodeHeartbeat> = {}): Promise<void> {
    const heard = { subscriber: this.#subscriber, publisher: this.#publisher };
    await answerInquiries(heard, ({ tenantId }) => ({
      nodeId: this.#nodeId,
      running: [...this.#running].filter(
        (job) => tenantId === undefined || job.tenantId === tenantId,
      ).length,
      total: 0,
      sandboxes: [],
    }));
    const serve = async (job: InvocationJob): Promise<void> => {
      this.#running.add(job);
      await this.#serve(job).finally(() => this.#running.delete(job));
      if (this.#running.size === 0) for (const hear of this.#idle.splice(0)) hear();
    };
    await this.#consumer.start(serve, {
      concurrency: change.concurrency ?? this.#beat.concurrency,
    });
    await this.appear(change);
  }

  /** Tells that it is there, and takes nothing. */
  async appear(change: Partial<NodeHeartbeat> = {}): Promise<void> {
    await this.#subscriber.subscribe(NODE_ASKED_CHANNEL, (message) => {
      const { id, question } = nodeAskedSchema.parse(message);
      if (id === this.#nodeId && this.#timer) void this.#tell(question).catch(() => {});
    });
    await this.beat(change);
    this.#timer = setInterval(() => void this.#tell().catch(() => {}), 3000);
  }

  /** Says that the node is there, from now on with this change. */
  async beat(change: Partial<NodeHeartbeat> = {}): Promise<void> {
    this.#beat = { ...this.#beat, ...change };
    await this.#tell();
  }

  /** Falls silent, as one that was killed does. */
  mute(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #tell(answers?: string): Promise<void> {
    return writeHeartbeat(this.#redis, { ...this.#beat, atMs: Date.now() }, answers);
  }

  /** What a killed worker looks like from outside. */
  dropLinks(): void {
    this.#links.close();
  }

  /** Resolves when nothing runs here. */
  idle(): Promise<void> {
    if (this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  pause(): void {
    this.#consumer.pause();
  }

  resume(): void {
    this.#consumer.resume();
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.mute();
    await removeHeartbeat(this.#redis, this.#nodeId).catch(() => {});
    this.dropLinks();
    await this.#consumer.close(0);
    await Promise.all([this.#subscriber.close(), disconnectRedis(this.#redis)]);
  }

  async #serve(job: InvocationJob): Promise<void> {
    this.jobs.push(job);
    const link = await this.#links.get(job.replyTo);
    const gone = Promise.withResolvers<void>();
    const pieces: Buffer[] = [];
    let ended = !job.bodyFollows;
    let wake = (): void => {};
    let credited = (): void => {};
    let left = false;
    const reply = link.open(job.id, {
      requestData(bytes) {
        pieces.push(Buffer.from(bytes));
        wake();
      },
      requestEnd() {
        ended = true;
        wake();
      },
      answerCredit: () => credited(),
      callerGone() {
        left = true;
        gone.resolve();
        credited();
        wake();
      },
    });
    if (job.bodyFollows) reply.announce();
    if (job.body)
      pieces.push(
        "text" in job.body ? Buffer.from(job.body.text) : Buffer.from(job.body.base64, "base64"),
      );
    const credit = (): Promise<void> =>
      new Promise<void>((resolve) => {
        credited = resolve;
      });
    const read = async (): Promise<Buffer | undefined> => {
      while (pieces.length === 0 && !ended && !left)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      const piece = pieces.shift();
      if (piece && job.bodyFollows) reply.consumed(piece.length);
      return piece;
    };
    let whole: Promise<Buffer> | undefined;
    const all = async (): Promise<Buffer> => {
      const parts: Buffer[] = [];
      for (let piece = await read(); piece; piece = await read()) parts.push(piece);
      return Buffer.concat(parts);
    };
    const behaviour = this.behaviours.get(job.head.path.split("?")[0] ?? "") ?? answers(200);
    await behaviour({
      job,
      reply,
      get body() {
        whole ??= all();
        return whole;
      },
      read,
      gone: gone.promise,
      credit,
      async write(bytes) {
        let at = 0;
        while (at < bytes.length && !left) {
          if (reply.credit === 0) await credit();
          const piece = bytes.subarray(at, at + reply.credit);
          if (left) return false;
          if (piece.length > 0) reply.sendData(piece);
          at += piece.length;
        }
        return !left;
      },
    });
  }
}
