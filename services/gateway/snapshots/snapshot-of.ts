import { bestOf, type SnapshotState } from "#contracts/snapshot";
import { type FunctionSummary, resolveFunction } from "#db/functions";
import { readNodes } from "#queue/nodes";
import { readSnapshotStates } from "#queue/snapshots";
import type { GatewayContext } from "../gateway-context.ts";
import { decideFor } from "../placement/placement-of.ts";

/** A worker that has heard of a new version has told so by then, ms. */
const SILENCE_MS = 15_000;

/** Whether a function's current version has a snapshot to start from, as far as its workers have told. */
export async function snapshotOf(
  { db, producer, placement }: Pick<GatewayContext, "db" | "producer" | "placement">,
  tenantId: string,
  { name, version, versionId, updatedAt }: FunctionSummary,
): Promise<SnapshotState> {
  const { redis } = producer;
  const told = await Promise.all([readNodes(redis), readSnapshotStates(redis, versionId)]).catch(
    () => undefined,
  );
  if (!told) return { state: "none", reason: "Redis, where workers tell of it, cannot be reached" };
  const [nodes, states] = told;
  // What a node that is gone had is gone.
  const there = nodes.flatMap(({ id }) => states.get(id) ?? []);
  const best = bestOf(there);
  if (best) return best;
  const target = await resolveFunction(db, tenantId, name, version);
  if (!target) return { state: "none", reason: "The function was deleted" };
  const decisions = nodes.map(({ sandboxd, kinds }) =>
    decideFor(target, undefined, sandboxd ? kinds : undefined, placement),
  );
  if (decisions.some((decision) => "path" in decision && decision.path === "microvm")) {
    if (Date.now() - updatedAt.getTime() < SILENCE_MS)
      return { state: "making", reason: "No worker has begun with it yet" };
    return { state: "none", reason: "The next call has one made" };
  }
  const [decision] = decisions;
  if (!decision) return { state: "none", reason: "No worker has reported itself" };
  const reason =
    "path" in decision
      ? `Only micro-VMs have snapshots, and this runs in a container now (${decision.reasons[0]})`
      : decision.detail;
  return { state: "none", reason };
}
