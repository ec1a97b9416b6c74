import type { Path, Runtime } from "#contracts/function";
import { decidePlacement, type PlacementInput } from "#contracts/placement";
import type { CallTarget } from "#db/functions";
import { CloisterError } from "#errors/catalogue";

/** What a node must be able to do for a call. The worker decides by the same rules again; this only finds who should be asked. */
export interface Demand {
  /** Equal for demands that the same nodes can serve. */
  readonly key: string;
  readonly input: Omit<PlacementInput, "kinds">;
  readonly memoryMb: number;
}

/** The part of a node that matters here. */
export interface Offer {
  kinds: readonly string[];
  images: readonly string[];
  memoryMb: number;
}

const ALL_KINDS = ["container", "microvm"];

export function demandOf(target: CallTarget, wanted: Path | undefined): Demand {
  const { isolation, runtime, memoryMb } = target.config;
  const { tier } = target;
  return {
    key: `${isolation} ${runtime} ${tier} ${wanted ?? ""} ${memoryMb}`,
    input: { isolation, runtime, wanted, tier },
    memoryMb,
  };
}

/** Whether a node with this can serve it, or is as good as any other to refuse it for a reason that lies in the call. */
export function canServe({ input, memoryMb }: Demand, offer: Offer): boolean {
  const decided = decidePlacement({ ...input, kinds: offer.kinds });
  if ("refused" in decided && decided.refused !== "isolation_not_allowed") return false;
  return hasImage(offer, input.runtime) && memoryMb <= offer.memoryMb;
}

/** A node that names no image has not said which it has. */
const hasImage = ({ images }: Offer, runtime: Runtime): boolean =>
  images.length === 0 || images.includes(runtime);

/** Why none of these can serve it. */
export function refusalOf({ input, memoryMb }: Demand, offers: readonly Offer[]): CloisterError {
  const ideal = decidePlacement({ ...input, kinds: ALL_KINDS });
  if ("refused" in ideal) return new CloisterError(ideal.refused, ideal.detail);
  if (offers.length === 0)
    return new CloisterError("isolation_unavailable", "No worker is there that could run this");
  const able = offers.filter(({ kinds }) => "path" in decidePlacement({ ...input, kinds }));
  if (able.length === 0) {
    const kinds = [...new Set(offers.flatMap((offer) => offer.kinds))].join(", ") || "nothing";
    const needed = ideal.path === "microvm" ? "micro-VM" : ideal.path;
    return new CloisterError(
      "isolation_unavailable",
      `This needs a ${needed}, and the nodes that are there offer ${kinds}`,
    );
  }
  if (!able.some((offer) => hasImage(offer, input.runtime)))
    return new CloisterError(
      "isolation_unavailable",
      `No node that could run this has the runtime ${input.runtime}`,
    );
  const largest = Math.max(...able.map((offer) => offer.memoryMb));
  return new CloisterError(
    "capacity_exhausted",
    `The function needs ${memoryMb} MiB, and the largest node has ${largest} MiB for all sandboxes`,
  );
}
