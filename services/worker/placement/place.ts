import { decidePlacement, type Placement, type PlacementInput } from "#contracts/placement";
import { CloisterError } from "#errors/catalogue";

export type { Placement, PlacementInput, Tier } from "#contracts/placement";

/** The path of an invocation, by the rules in contracts; throws when it may run on none. */
export function place(input: PlacementInput): Placement {
  const decided = decidePlacement(input);
  if ("path" in decided) return decided;
  throw new CloisterError(decided.refused, decided.detail);
}
