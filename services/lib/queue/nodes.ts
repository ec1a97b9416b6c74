import type { Redis } from "ioredis";
import { z } from "zod";
import { clearQueue, type LostJobsListener, NODES_INDEX } from "./node-queue.ts";

/** Versions a heartbeat names at most, those used last first: enough for a node's memory, and a bound of the message. */
export const VERSIONS_TOLD = 200;
const versionsSchema = z.array(z.string().min(1).max(64)).max(VERSIONS_TOLD).default([]);

/** What a worker says about its node every few seconds, and at once when something changes. A node that has not spoken for NODE_TTL_MS is gone. */
export const nodeHeartbeatSchema = z.object({
  /** A part of a queue's name. */
  id: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
  pid: z.number().int(),
  atMs: z.number(),
  startedAtMs: z.number(),
  draining: z.boolean(),
  /** False while sandboxd cannot be reached: the node takes no work it could do. */
  sandboxd: z.boolean(),
  /** Sandbox kinds it makes, e.g. ["container"]. */
  kinds: z.array(z.string()),
  /** Image name to digest. */
  images: z.record(z.string(), z.string()),
  cgroup: z.string().optional(),
  cpuModel: z.string().max(128).optional(),
  /** Processors it may use at once. */
  processors: z.number().int().min(1).default(1),
  memoryMb: z.number(),
  memoryReservedMb: z.number(),
  invocations: z.number().int(),
  concurrency: z.number().int().min(1),
  warm: z.number().int(),
  busy: z.number().int(),
  prepared: z.number().int(),
  /** Versions of which a sandbox is warm here. */
  warmVersions: versionsSchema,
  /** Versions of which a snapshot is here. */
  snapshotVersions: versionsSchema,
  /** Gateways, and tenants, that have had work here within the last half minute. */
  gateways: z.number().int().min(0).default(1),
  tenants: z.number().int().min(0).default(1),
});
export type NodeHeartbeat = z.infer<typeof nodeHeartbeatSchema>;

export const NODE_TTL_MS = 10_000;
/** After this long without a word nobody waits for a node's jobs any more, and what Redis has of it goes. */
const FORGOTTEN_MS = 10 * NODE_TTL_MS;

/** Redis pub/sub channel on which heartbeats go out, so that nobody need ask for them. */
export const NODES_CHANNEL = "cloister:nodes:told";

/** Redis pub/sub channel on which somebody asks one node to tell of itself at once. */
export const NODE_ASKED_CHANNEL = "cloister:nodes:asked";
export const nodeAskedSchema = z.object({
  id: z.string().max(64),
  /** Comes back in the answer, so that it is not taken for what was on its way before. */
  question: z.string().max(64),
});

/** A message of NODES_CHANNEL. */
export const nodeMessageSchema = z.union([
  z.object({ node: nodeHeartbeatSchema, answers: z.string().max(64).optional() }),
  z.object({ gone: z.string().min(1).max(64) }),
]);

const nodeKey = (id: string): string => `cloister:nodes:${id}`;

/** Tells it to whoever listens, and keeps it for those who ask later. Clears what nodes have left that died long ago. */
export async function writeHeartbeat(
  redis: Redis,
  node: NodeHeartbeat,
  answers?: string,
  lost?: LostJobsListener,
): Promise<void> {
  const results = await redis
    .multi()
    .set(nodeKey(node.id), JSON.stringify(node), "PX", NODE_TTL_MS)
    .zadd(NODES_INDEX, node.atMs, node.id)
    .publish(NODES_CHANNEL, JSON.stringify({ node, answers }))
    .zrangebyscore(NODES_INDEX, "-inf", node.atMs - FORGOTTEN_MS, "LIMIT", 0, 8)
    .exec();
  const forgotten = (results?.at(-1)?.[1] ?? []) as string[];
  for (const id of forgotten) {
    await clearQueue(redis, id, lost);
    await redis.zrem(NODES_INDEX, id);
  }
}

/** The node takes no more work. Its id stays in the index until its queue is cleared. */
export async function removeHeartbeat(redis: Redis, id: string): Promise<void> {
  await redis
    .multi()
    .del(nodeKey(id))
    .publish(NODES_CHANNEL, JSON.stringify({ gone: id }))
    .exec();
}

/** Nodes that spoke within NODE_TTL_MS, in order of id. Entries that are not a heartbeat are left out. */
export async function readNodes(redis: Redis): Promise<NodeHeartbeat[]> {
  const ids = await redis.zrange(NODES_INDEX, 0, -1);
  if (ids.length === 0) return [];
  const nodes: NodeHeartbeat[] = [];
  for (const text of await redis.mget(ids.sort().map(nodeKey))) {
    if (!text) continue;
    const parsed = nodeHeartbeatSchema.safeParse(JSON.parse(text));
    if (parsed.success) nodes.push(parsed.data);
  }
  return nodes;
}
