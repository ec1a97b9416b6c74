import type { Redis } from "ioredis";
import { type SnapshotState, snapshotStateSchema } from "#contracts/snapshot";

/** A worker tells again well before this; what a node that is gone has told goes with it, s. */
const TTL_S = 3600;

const stateKey = (versionId: string): string => `cloister:snapshots:${versionId}`;

/** Tells what a node has of a version. */
export async function writeSnapshotState(
  redis: Redis,
  versionId: string,
  nodeId: string,
  state: SnapshotState,
): Promise<void> {
  const key = stateKey(versionId);
  await redis.multi().hset(key, nodeId, JSON.stringify(state)).expire(key, TTL_S).exec();
}

/** What nodes have told of a version, by node. Entries that are not a state are left out. */
export async function readSnapshotStates(
  redis: Redis,
  versionId: string,
): Promise<Map<string, SnapshotState>> {
  const states = new Map<string, SnapshotState>();
  for (const [node, text] of Object.entries(await redis.hgetall(stateKey(versionId)))) {
    const parsed = snapshotStateSchema.safeParse(JSON.parse(text));
    if (parsed.success) states.set(node, parsed.data);
  }
  return states;
}
