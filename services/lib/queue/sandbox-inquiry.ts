import { randomBytes } from "node:crypto";
import type { Redis } from "ioredis";
import { z } from "zod";
import {
  type NodeSandboxes,
  nodeSandboxesSchema,
  type SandboxFilter,
} from "#contracts/live-sandbox";
import { CloisterError } from "#errors/catalogue";
import { readNodes } from "./nodes.ts";
import type { Publisher, Subscriber } from "./pubsub.ts";

/** Nodes tell of their sandboxes when they are asked, so that it costs nothing while nobody looks. */
const CHANNEL = "cloister:sandboxes";
/** Of one node: some hundred KiB. */
const MAX_SANDBOXES = 1000;
/** A node that takes longer is told as silent, ms. */
const BOUND_MS = 1000;

const inquirySchema = z.strictObject({
  answerTo: z.string().regex(/^cloister:sandboxes:[0-9a-f]{32}$/),
  tenantId: z.string().max(64).optional(),
  functionId: z.string().max(64).optional(),
});

export interface InquiryOutcome {
  /** In order of id. */
  nodes: NodeSandboxes[];
  /** Nodes that live, and have not answered. */
  silent: string[];
}

/** Asks all nodes. Rejects with `dependency_unavailable` when Redis is away. */
export async function askSandboxes(
  { redis, subscriber }: { redis: Redis; subscriber: Subscriber },
  filter: SandboxFilter = {},
  boundMs = BOUND_MS,
): Promise<InquiryOutcome> {
  const answerTo = `${CHANNEL}:${randomBytes(16).toString("hex")}`;
  const answers = new Map<string, NodeSandboxes>();
  const { promise: whole, resolve } = Promise.withResolvers<void>();
  let asked = Number.POSITIVE_INFINITY;
  const hear = (message: unknown): void => {
    const parsed = nodeSandboxesSchema.safeParse(message);
    if (parsed.success) answers.set(parsed.data.nodeId, parsed.data);
    if (answers.size >= asked) resolve();
  };
  const timer = setTimeout(resolve, boundMs);
  const subscribed = subscriber.subscribe(answerTo, hear);
  try {
    // While Redis is away a subscription waits for it.
    await Promise.race([subscribed, whole]);
    asked = await redis.publish(CHANNEL, JSON.stringify({ answerTo, ...filter }));
    if (answers.size >= asked) resolve();
    await whole;
    const live = await readNodes(redis);
    return {
      nodes: [...answers.values()].sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1)),
      silent: live.map(({ id }) => id).filter((id) => !answers.has(id)),
    };
  } catch {
    throw new CloisterError("dependency_unavailable", "The queue cannot be reached");
  } finally {
    clearTimeout(timer);
    subscribed.then((end) => end()).catch(() => {});
  }
}

/** Has a node answer, with at most as many sandboxes as one message should hold. */
export async function answerInquiries(
  { subscriber, publisher }: { subscriber: Subscriber; publisher: Publisher },
  answer: (filter: SandboxFilter, limit: number) => NodeSandboxes,
): Promise<void> {
  await subscriber.subscribe(CHANNEL, (message) => {
    const parsed = inquirySchema.safeParse(message);
    if (!parsed.success) return;
    const { answerTo, ...filter } = parsed.data;
    void publisher.publish(answerTo, answer(filter as SandboxFilter, MAX_SANDBOXES));
  });
}
