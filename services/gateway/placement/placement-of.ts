import type { Path } from "#contracts/function";
import { type BundleFindings, findingsOfConfig } from "#contracts/needs";
import { decidePlacement, type Placement, type Refusal } from "#contracts/placement";
import type { PlacementEngine } from "#contracts/placement-engine";
import type { CallTarget } from "#db/functions";
import { readFindings } from "#db/functions";
import { CloisterError } from "#errors/catalogue";
import { type NodeHeartbeat, readNodes } from "#queue/nodes";
import {
  askPlacement,
  type NodePlacement,
  type ToldPlacement,
  toldPlacement,
} from "#queue/placement-asks";
import { Publisher } from "#queue/pubsub";
import type { GatewayContext } from "../gateway-context.ts";

/** What one node says of a call; `answered` is false where it was decided by the node's last heartbeat, because it did not answer in time. */
export interface ToldByNode extends NodePlacement {
  answered: boolean;
}

export type PlacementReport = ToldPlacement & {
  findings: BundleFindings & { looked: boolean };
  nodes: ToldByNode[];
};

/** Which path a call would take and why, by what every live node says. Runs nothing. */
export async function placementOf(
  gateway: Pick<GatewayContext, "db" | "producer" | "subscriber" | "placement">,
  target: CallTarget,
  wanted: Path | undefined,
): Promise<PlacementReport> {
  const { db, producer, subscriber } = gateway;
  const { versionId, tenantId } = target;
  const [stored, live] = await Promise.all([
    readFindings(db, versionId),
    readNodes(producer.redis).catch(() => {
      throw new CloisterError("dependency_unavailable", "The queue cannot be reached");
    }),
  ]);
  const nodes = live.filter(({ draining }) => !draining);
  const answers = await askPlacement(
    { publisher: new Publisher(producer.redis), subscriber },
    { versionId, tenantId, ...(wanted === undefined ? {} : { wanted }) },
    nodes.filter(({ sandboxd }) => sandboxd).map(({ id }) => id),
  );
  const decide = (kinds: readonly string[] | undefined) =>
    decideFor(target, wanted, kinds, gateway.placement);
  const told = nodes.map((node) => {
    const answer = answers.get(node.id);
    return answer
      ? { ...answer, answered: true }
      : { ...byHeartbeat(node, decide), answered: false };
  });
  return {
    ...(bestOf(told) ?? nobody(decide(undefined))),
    findings: {
      ...(stored ?? { needs: findingsOfConfig(target.config), hints: [], complete: false }),
      looked: stored !== undefined,
    },
    nodes: told,
  };
}

/** What the rules say of a version on a node with these kinds. */
export const decideFor = (
  { config, needs, policy }: CallTarget,
  wanted: Path | undefined,
  kinds: readonly string[] | undefined,
  engine: PlacementEngine,
): Placement | Refusal =>
  decidePlacement(
    {
      ...policy,
      ...{ isolation: config.isolation, runtime: config.runtime, wanted, needs, kinds },
    },
    engine,
  );

function byHeartbeat(
  { id, sandboxd, kinds }: NodeHeartbeat,
  decide: (kinds: readonly string[] | undefined) => Placement | Refusal,
): NodePlacement {
  return { id, paths: {}, ...toldPlacement(decide(sandboxd ? kinds : undefined)) };
}

/** The node where the call would begin soonest, else what the first one says against it. */
function bestOf(nodes: readonly ToldByNode[]): ToldPlacement | undefined {
  const rank = ({ path, paths }: NodePlacement): number =>
    path === null ? 3 : paths[path] === undefined ? 2 : paths[path].ready ? 0 : 1;
  const [best] = [...nodes].sort((a, b) => rank(a) - rank(b));
  if (!best) return undefined;
  const { id: _id, paths: _paths, answered: _answered, ...decision } = best;
  return decision;
}

const NOBODY = "no worker has reported itself";

/** Without a node the rules may still refuse for good; a path there is not. */
function nobody(decided: Placement | Refusal): ToldPlacement {
  const told = toldPlacement(decided);
  if (told.code !== "sandbox_failed") return told;
  const reasons = [...told.reasons.slice(0, -1), NOBODY];
  return {
    ...told,
    code: "isolation_unavailable",
    detail: "No worker has reported itself",
    reasons,
  };
}
