import type { Scenario } from "../lib/plan.ts";
import { burst } from "./burst.ts";
import { coldStartStorm } from "./cold-start-storm.ts";
import { isolationAb } from "./isolation-ab.ts";
import { largeBodies } from "./large-bodies.ts";
import { mixed } from "./mixed.ts";
import { noisyNeighbour } from "./noisy-neighbour.ts";
import { quotaEdge } from "./quota-edge.ts";
import { ramp } from "./ramp.ts";
import { soak } from "./soak.ts";
import { streaming } from "./streaming.ts";
import { warmSteady } from "./warm-steady.ts";

/** In the order `./cloister load --list` shows them. */
export const SCENARIOS: readonly Scenario[] = [
  coldStartStorm,
  warmSteady,
  burst,
  ramp,
  soak,
  noisyNeighbour,
  quotaEdge,
  isolationAb,
  mixed,
  largeBodies,
  streaming,
];
