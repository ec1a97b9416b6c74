import type { Redis } from "ioredis";
import { z } from "zod";

/** What a worker says about its node every few seconds. A node that has not spoken for NODE_TTL_MS is gone. */
export const nodeHeartbeatSchema = z.object({
  id: z.string().min(1).max(64),
  pid: z.number().int(),
  atMs: z.number(),
  startedAtMs: z.number(),
  draining: z.boolean(),
  /** False while sandboxd cannot be reached: the node takes no work it could do. */
  sandboxd: z.boolean(),
  /** Sandbox kinds sandboxd can make, e.g. ["container"]. */
  kinds: z.array(z.string()),
  /** Image name to digest. */
  images: z.record(z.string(), z.string()),
  cgroup: z.string().optional(),
  memoryMb: z.number(),
  memoryReservedMb: z.number(),
  invocations: z.number().int(),
  concurrency: z.number().int(),
  warm: z.number().int(),
  busy: z.number().int(),
  prepared: z.number().int(),
});
export type NodeHeartbeat = z.infer<typeof nodeHeartbeatSchema>;

export const NODE_TTL_MS = 10_000;

/** Sorted set of node ids by time of last heartbeat, so that reading the nodes never scans the key space. */
const INDEX = "cloister:nodes";
const nodeKey = (id: string): string => `cloister:nodes:${id}`;

export async function writeHeartbeat(redis: Redis, node: NodeHeartbeat): Promise<void> {
  await redis
    .multi()
    .set(nodeKey(node.id), JSON.stringify(node), "PX", NODE_TTL_MS)
    .zadd(INDEX, node.atMs, node.id)
    .zremrangebyscore(INDEX, "-inf", node.atMs - 10 * NODE_TTL_MS)
    .exec();
}

export async function removeHeartbeat(redis: Redis, id: string): Promise<void> {
  await redis.multi().del(nodeKey(id)).zrem(INDEX, id).exec();
}

/** Nodes that spoke within NODE_TTL_MS, in order of id. Entries that are not a heartbeat are left out. */
export async function readNodes(redis: Redis): Promise<NodeHeartbeat[]> {
  const ids = await redis.zrange(INDEX, 0, -1);
  if (ids.length === 0) return [];
  const nodes: NodeHeartbeat[] = [];
  for (const text of await redis.mget(ids.sort().map(nodeKey))) {
    if (!text) continue;
    const parsed = nodeHeartbeatSchema.safeParse(JSON.parse(text));
    if (parsed.success) nodes.push(parsed.data);
  }
  return nodes;
}
