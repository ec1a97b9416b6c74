import type { Isolation, Path } from "#contracts/function";
import { CloisterError } from "#errors/catalogue";

export type Tier = "trusted" | "standard" | "untrusted";

export interface PlacementInput {
  /** What the function's configuration asks for. */
  isolation: Isolation;
  /** What the caller's Cloister-Isolation header asks for. */
  wanted: Path | undefined;
  tier: Tier;
  /** What this node can do, as sandboxd says; undefined while it cannot be reached. */
  kinds: readonly string[] | undefined;
}

export interface Placement {
  path: Path;
  reasons: string[];
}

/**
 * Which path an invocation runs on, and why. Stronger isolation than needed is allowed, weaker never: when the needed path
 * cannot be had this throws, it does not look for another.
 */
export function place(input: PlacementInput): Placement {
  const { isolation, wanted, tier } = input;
  const reasons: string[] = [];
  let needed: Path;
  if (isolation === "auto") {
    needed = tier === "trusted" ? "container" : "microvm";
    reasons.push(`isolation is auto and the tenant is ${tier}: ${needed}`);
  } else {
    needed = isolation;
    reasons.push(`the function asks for ${isolation}`);
  }
  if (wanted !== undefined && wanted !== needed) {
    if (wanted === "container")
      throw new CloisterError(
        "isolation_not_allowed",
        "The caller asks for a container, but this function needs a micro-VM",
      );
    needed = wanted;
    reasons.push(`the caller asks for ${wanted}`);
  }
  if (!input.kinds)
    throw new CloisterError(
      "sandbox_failed",
      "sandboxd cannot be reached; it may be starting again",
    );
  if (!input.kinds.includes(needed))
    throw new CloisterError(
      "isolation_unavailable",
      `This needs a ${needed === "microvm" ? "micro-VM" : needed}, and this node offers ${input.kinds.join(", ") || "nothing"}`,
    );
  reasons.push(`this node offers ${needed}`);
  return { path: needed, reasons };
}
