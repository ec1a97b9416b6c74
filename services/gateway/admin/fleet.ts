import type { LiveSandbox, SandboxFilter } from "#contracts/live-sandbox";
import { CloisterError } from "#errors/catalogue";
import { type NodeHeartbeat, readNodes } from "#queue/nodes";
import type { QueueState } from "#queue/queue-state";
import { askSandboxes } from "#queue/sandbox-inquiry";
import type { GatewayContext } from "../gateway-context.ts";

type Gateway = Pick<GatewayContext, "producer" | "subscriber">;

/** A node, and how long ago it spoke, ms. */
export type LiveNode = NodeHeartbeat & { ageMs: number };

/** Nodes that spoke within the last 10 s. Rejects with `dependency_unavailable`. */
export async function liveNodes({ producer }: Gateway): Promise<LiveNode[]> {
  const nodes = await readNodes(producer.redis).catch(queueAway);
  const now = Date.now();
  return nodes.map((node) => ({ ...node, ageMs: Math.max(0, now - node.atMs) }));
}

/** How each queue stands. Rejects with `dependency_unavailable`. */
export const queueStates = ({ producer }: Gateway): Promise<QueueState[]> =>
  producer.states().catch(queueAway);

export interface FleetSandboxes {
  sandboxes: (LiveSandbox & { node: string })[];
  /** How many there are; `sandboxes` may hold fewer. */
  total: number;
  /** Invocations that nodes have taken and not ended. */
  running: number;
  /** Nodes that live and did not answer. */
  silent: string[];
}

/** Live sandboxes of all nodes, as they tell at this moment, at most `limit`. Rejects with `dependency_unavailable`. */
export async function liveSandboxes(
  { producer, subscriber }: Gateway,
  filter: SandboxFilter,
  limit: number,
): Promise<FleetSandboxes> {
  const { nodes, silent } = await askSandboxes({ redis: producer.redis, subscriber }, filter);
  const sandboxes = nodes.flatMap(({ nodeId, sandboxes: own }) =>
    own.map((sandbox) => ({ ...sandbox, node: nodeId })),
  );
  const sum = (of: "total" | "running"): number => nodes.reduce((all, node) => all + node[of], 0);
  return {
    sandboxes: sandboxes.slice(0, limit),
    total: sum("total"),
    running: sum("running"),
    silent,
  };
}

const queueAway = (): never => {
  throw new CloisterError("dependency_unavailable", "The queue cannot be reached");
};
