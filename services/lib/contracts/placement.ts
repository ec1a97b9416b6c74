import type { ErrorCode } from "../errors/catalogue.ts";
import type { Isolation, Path, Runtime } from "./function.ts";

export type Tier = "trusted" | "standard" | "untrusted";

export interface PlacementInput {
  /** What the function's configuration asks for. */
  isolation: Isolation;
  runtime: Runtime;
  /** What the caller's Cloister-Isolation header asks for. */
  wanted: Path | undefined;
  tier: Tier;
  /** What can be made, as sandboxd says; undefined while it cannot be reached. */
  kinds: readonly string[] | undefined;
}

export interface Placement {
  path: Path;
  reasons: string[];
}

/** No path may serve this; `detail` says why in one sentence, `reasons` how far the rules came. */
export interface Refusal {
  refused: ErrorCode;
  detail: string;
  reasons: string[];
}

/**
 * Which path an invocation runs on, and why. Stronger isolation than needed is allowed, weaker never: when the needed path
 * cannot be had it is refused, no other is looked for.
 */
export function decidePlacement(input: PlacementInput): Placement | Refusal {
  const { isolation, runtime, wanted, tier, kinds } = input;
  const reasons: string[] = [];
  const refuse = (refused: ErrorCode, detail: string): Refusal => ({
    refused,
    detail,
    reasons: [...reasons, detail],
  });
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
      return refuse(
        "isolation_not_allowed",
        "The caller asks for a container, but this function needs a micro-VM",
      );
    needed = wanted;
    reasons.push(`the caller asks for ${wanted}`);
  }
  if (!kinds)
    return refuse("sandbox_failed", "sandboxd cannot be reached; it may be starting again");
  if (!kinds.includes(needed))
    return refuse(
      "isolation_unavailable",
      `This needs a ${needed === "microvm" ? "micro-VM" : needed}, and this node offers ${kinds.join(", ") || "nothing"}`,
    );
  if (needed === "microvm" && runtime === "binary")
    return refuse(
      "isolation_unavailable",
      "A native program is a process of its own for each call, and micro-VMs of this version hold one process",
    );
  reasons.push(`this node offers ${needed}`);
  return { path: needed, reasons };
}
