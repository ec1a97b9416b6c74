import { z } from "zod";
import {
  isolationSchema,
  type Path,
  pathSchema,
  runtimeSchema,
  type StartKind,
} from "./function.ts";
import { needSchema } from "./need-kinds.ts";

export const TIERS = ["trusted", "standard", "untrusted"] as const;
export const tierSchema = z.enum(TIERS);
export type Tier = z.infer<typeof tierSchema>;

const members = <T extends z.ZodType>(one: T) => z.array(one).min(1).max(16).readonly().optional();

/** When a rule fires: all fields that are there hold, and a field holds when any of its members does. */
export const conditionSchema = z.strictObject({
  /** What the function's configuration says. */
  isolation: members(isolationSchema),
  runtime: members(runtimeSchema),
  tier: members(tierSchema),
  /** What the caller's Cloister-Isolation header says; `none` when it says nothing. */
  wanted: members(z.union([pathSchema, z.literal("none")])),
  /** Least isolation set for the tenant, and for the function by its quota. */
  minimumIsolation: members(pathSchema),
  functionMinimum: members(pathSchema),
  /** Paths that the tenant's quota leaves out. */
  forbidden: members(pathSchema),
  needs: members(needSchema),
});
export type Condition = z.infer<typeof conditionSchema>;

/**
 * What a rule does. Only `atLeast` and `not` bear on security, and both only take paths away: the floor is the strongest `atLeast`, whatever
 * else is said. `pin` is what the function asks for and gives way to the floor; `exactly` is what the caller asks for, and is refused
 * below the floor; `prefer` orders what is left; `note` only explains.
 */
export type Effect =
  | { atLeast: Path }
  | { not: Path; code: "isolation_unavailable" | "quota_exceeded" }
  | { pin: Path }
  | { exactly: Path }
  | { prefer: "cheaper" | Path }
  | { note: true };

export interface PlacementRule {
  id: string;
  when: Condition;
  effect: Effect;
  /** The reason, as half a sentence that can follow "but". */
  why: string;
  /** What to do when this rule leaves no path. */
  remedy?: string;
}

/** What a start costs. */
export interface Cost {
  /** From the wish for a sandbox to one that can be called, ms. */
  acquireMs: number;
  /** Most memory of one sandbox, MiB. */
  memoryMb: number;
}

/** What starts of a path are taken to cost before any was observed. */
export interface PriorCost {
  /** By how it starts; what is not named takes as long as a cold one. */
  acquireMs: { cold: number; prepared?: number | undefined; restored?: number | undefined };
  memoryMb: number;
}

export interface CostRules {
  prior: Readonly<Record<Path, PriorCost>>;
  /** What a MiB held is worth in ms of waiting, so that the two can be added. */
  msPerMb: number;
  /** Another path than the last one is taken when it costs less than this share of it. */
  switchBelow: number;
  /** After this long an observation counts half, ms. */
  halfLifeMs: number;
  /** How many observations the prior counts for. */
  priorWeight: number;
}

export interface PlacementTable {
  version: string;
  rules: readonly PlacementRule[];
  cost: CostRules;
}

const remedyOfSubprocess =
  "Deploy with --isolation container if the tenant may use containers, or with --isolation microvm if the function does without other programs.";

const AT_ONCE = { acquireMs: 0, memoryMb: 0 } as const satisfies Cost;

/** What a start is taken to cost when nothing is known of it but how it would be. */
export function priorOf({ prior }: CostRules, path: Path, start: StartKind): Cost {
  if (start === "warm" || start === "reset") return AT_ONCE;
  const { acquireMs, memoryMb } = prior[path];
  return { acquireMs: acquireMs[start] ?? acquireMs.cold, memoryMb };
}

/** The rules of this release. docs/placement.md is made of them; a test compares the two. */
export const PLACEMENT_TABLE: PlacementTable = {
  version: "1",
  rules: [
    {
      id: "function-microvm",
      when: { isolation: ["microvm"] },
      effect: { atLeast: "microvm" },
      why: "the function asks for a micro-VM",
    },
    {
      id: "function-container",
      when: { isolation: ["container"] },
      effect: { pin: "container" },
      why: "the function asks for a container",
    },
    {
      id: "function-minimum",
      when: { functionMinimum: ["microvm"] },
      effect: { atLeast: "microvm" },
      why: "the function's minimum isolation is a micro-VM",
    },
    {
      id: "tenant-minimum",
      when: { minimumIsolation: ["microvm"] },
      effect: { atLeast: "microvm" },
      why: "the tenant's minimum isolation is a micro-VM",
    },
    {
      id: "tenant-untrusted",
      when: { tier: ["untrusted"] },
      effect: { atLeast: "microvm" },
      why: "the tenant is untrusted, which takes a micro-VM",
    },
    {
      id: "tenant-no-containers",
      when: { forbidden: ["container"] },
      effect: { atLeast: "microvm" },
      why: "the tenant's quota leaves containers out",
    },
    {
      id: "tenant-no-micro-vms",
      when: { forbidden: ["microvm"] },
      effect: { not: "microvm", code: "quota_exceeded" },
      why: "the tenant's quota leaves micro-VMs out",
      remedy: "Have the operator add the path microvm to the tenant's quota.",
    },
    {
      id: "auto-standard",
      when: { isolation: ["auto"], tier: ["standard"] },
      effect: { atLeast: "microvm" },
      why: "isolation is auto and the tenant is standard, which takes a micro-VM",
    },
    {
      id: "auto-trusted",
      when: { isolation: ["auto"], tier: ["trusted"], wanted: ["none"] },
      effect: { prefer: "cheaper" },
      why: "isolation is auto and the tenant is trusted, so the cheaper path will do",
    },
    {
      id: "caller-microvm",
      when: { wanted: ["microvm"] },
      effect: { atLeast: "microvm" },
      why: "the caller asks for a micro-VM",
    },
    {
      id: "caller-container",
      when: { wanted: ["container"] },
      effect: { exactly: "container" },
      why: "the caller asks for a container",
    },
    {
      id: "need-native-program",
      when: { runtime: ["binary"] },
      effect: { not: "microvm", code: "isolation_unavailable" },
      why: "a native program is a process of its own for each call, and micro-VMs of this version hold one process",
      remedy:
        "Deploy with --isolation container if the tenant may use containers, or rebuild the function for node or python3.",
    },
    {
      id: "need-subprocess",
      // Who names the micro-VM knows better than a scan: there the call meets EPERM, if it comes to that.
      when: { needs: ["subprocess"], isolation: ["auto", "container"], wanted: ["none"] },
      effect: { not: "microvm", code: "isolation_unavailable" },
      why: "the function starts other programs, and micro-VMs of this version hold one process",
      remedy: remedyOfSubprocess,
    },
    {
      id: "note-subprocess-function",
      when: { needs: ["subprocess"], isolation: ["microvm"] },
      effect: { note: true },
      why: "the function seems to start other programs; a micro-VM refuses that with EPERM",
    },
    {
      id: "note-subprocess-caller",
      when: { needs: ["subprocess"], isolation: ["auto", "container"], wanted: ["microvm"] },
      effect: { note: true },
      why: "the function seems to start other programs; a micro-VM refuses that with EPERM",
    },
    {
      id: "need-egress-container",
      when: { needs: ["egress"] },
      effect: { not: "container", code: "isolation_unavailable" },
      why: "the function asks for a network, and containers of this version have none",
      remedy: "Deploy with egress none.",
    },
    {
      id: "need-egress-microvm",
      when: { needs: ["egress"] },
      effect: { not: "microvm", code: "isolation_unavailable" },
      why: "the function asks for a network, and micro-VMs of this version have none",
      remedy: "Deploy with egress none.",
    },
  ],
  cost: {
    prior: {
      container: { acquireMs: { cold: 80, prepared: 5 }, memoryMb: 20 },
      microvm: { acquireMs: { cold: 130, prepared: 5, restored: 10 }, memoryMb: 24 },
    },
    msPerMb: 0.05,
    switchBelow: 0.75,
    halfLifeMs: 600_000,
    priorWeight: 4,
  },
};
