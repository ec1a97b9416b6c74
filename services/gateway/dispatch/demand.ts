import type { Path, Runtime } from "#contracts/function";
import { demandOf, type Demand as PathDemand, type Refusal } from "#contracts/placement";
import type { PlacementEngine } from "#contracts/placement-engine";
import type { CallTarget } from "#db/functions";
import { CloisterError } from "#errors/catalogue";

/** What a node must have for a call. The worker decides by the same rules again; this only finds who should be asked. */
export interface Demand {
  /** Equal for demands that the same nodes can serve. */
  readonly key: string;
  /** Any of them; undefined when the rules refuse the call whatever a node has, which any node may tell and record. */
  readonly paths: readonly Path[] | undefined;
  readonly runtime: Runtime;
  readonly memoryMb: number;
}

/** The part of a node that matters here. */
export interface Offer {
  kinds: readonly string[];
  images: readonly string[];
  memoryMb: number;
}

/** By the rules that hold in this installation; the built-in ones when `engine` is absent. */
export function nodeDemand(
  target: CallTarget,
  wanted: Path | undefined,
  engine?: PlacementEngine,
): Demand {
  const { config, tier, policy, needs } = target;
  const { isolation, runtime, memoryMb } = config;
  const asked: PathDemand | Refusal = demandOf(
    {
      isolation,
      runtime,
      tier,
      wanted,
      needs,
      minimumIsolation: policy.minimumIsolation ?? undefined,
      paths: policy.paths ?? undefined,
    },
    engine,
  );
  const paths = "paths" in asked ? asked.paths : undefined;
  return {
    key: paths ? `${[...paths].sort().join("|")} ${runtime} ${memoryMb}` : "refused",
    paths,
    runtime,
    memoryMb,
  };
}

export const canServe = (demand: Demand, offer: Offer): boolean =>
  demand.paths === undefined ||
  (hasPath(demand, offer) && hasImage(demand, offer) && demand.memoryMb <= offer.memoryMb);

const hasPath = ({ paths }: Demand, { kinds }: Offer): boolean =>
  paths?.some((path) => kinds.includes(path)) === true;

/** A node that names no image has not said which it has. */
const hasImage = ({ runtime }: Demand, { images }: Offer): boolean =>
  images.length === 0 || images.includes(runtime);

/** Why none of these can serve it. */
export function refusalOf(demand: Demand, offers: readonly Offer[]): CloisterError {
  if (offers.length === 0)
    return new CloisterError("isolation_unavailable", "No worker is there that could run this");
  const able = offers.filter((offer) => hasPath(demand, offer));
  if (able.length === 0) {
    const kinds = [...new Set(offers.flatMap((offer) => offer.kinds))].join(", ") || "nothing";
    const needed = demand.paths?.map((path) => (path === "microvm" ? "micro-VM" : path));
    return new CloisterError(
      "isolation_unavailable",
      `This needs a ${needed?.join(" or a ")}, and the nodes that are there offer ${kinds}`,
    );
  }
  const equipped = able.filter((offer) => hasImage(demand, offer));
  if (equipped.length === 0)
    return new CloisterError(
      "isolation_unavailable",
      `No node that could run this has the runtime ${demand.runtime}`,
    );
  const largest = Math.max(...equipped.map((offer) => offer.memoryMb));
  return new CloisterError(
    "capacity_exhausted",
    `The function needs ${demand.memoryMb} MiB, and the largest node has ${largest} MiB for all sandboxes`,
  );
}
