import type { Isolation, Path } from "../../services/lib/contracts/function.ts";

/** What whoever runs a scenario may choose. */
export interface Settings {
  durationMs: number;
  /** Requests per second at the scenario's highest. */
  rate?: number;
  /** Callers at once; for a storm, functions. */
  clients?: number;
  isolation?: Path;
}

/** A function that a scenario needs. It is deployed under a name of the run and removed at its end. */
export interface LoadFunction {
  /** Within the scenario. */
  name: string;
  source: string;
  memoryMb?: number;
  concurrency?: number;
  isolation?: Isolation;
  /** Whose it is; default: the tenant of the key that the run has. */
  tenant?: string;
}

/** A tenant of the run's own, made by the admin API. */
export interface LoadTenant {
  name: string;
  tier: "trusted" | "standard" | "untrusted";
  /** Fields of a quota; those left out are unlimited. */
  quota: Readonly<Record<string, number>>;
}

export interface LoadRequest {
  function: string;
  /** Under the function's address, with the query. */
  path: string;
  /** Bytes of a body that is sent by POST; without it the method is GET. */
  bodyBytes?: number;
  isolation?: Path;
  /** How often among the others, when the stream picks by weight. */
  weight?: number;
  /** What the answer must be besides 200: the body that was sent, or so many bytes. */
  answer?: "echo" | { bytes: number };
  /** A 429 is an answer that the scenario wants to see: it is counted as refused, and must say when to come again. */
  mayBeRefused?: boolean;
  /** Told apart in the report from others of its stream. */
  tag?: string;
}

/** A while of an open stream with one rate. Told apart in the report by its name. */
export interface Step {
  name: string;
  perSecond: number;
  durationMs: number;
}

export type Arrival =
  /** Open: requests come when they come, however slow the answers are. One that would be the `mostInFlight + 1`st is dropped and counted. */
  | { kind: "rate"; steps: readonly Step[]; mostInFlight: number }
  /** Closed: each client sends its next request when it has its answer. */
  | { kind: "clients"; clients: number; durationMs: number }
  /** Every request of the list once, all at the same moment. */
  | { kind: "once" };

/** k6 runs each stream as a scenario of its own. */
export interface Stream {
  name: string;
  /** After the beginning of the run. */
  startMs: number;
  arrival: Arrival;
  requests: readonly LoadRequest[];
  /** In turn, which interleaves them; or at random by their weights, the same each time. */
  pick: "in-turn" | "by-weight";
}

export const TIME_MEASURES = ["p50_ms", "p99_ms", "first_byte_p99_ms", "p99_over_p50"] as const;
export const COUNT_MEASURES = ["failed", "dropped", "refused", "ok"] as const;
export type Measure = (typeof TIME_MEASURES | typeof COUNT_MEASURES)[number];

/** Crossed when the measure is over `most` or under `least`. Counts are of all requests, or parts of one where `part` says so. */
export interface Threshold {
  measure: Measure;
  /** Of one stream or step; default: of all. */
  stream?: string;
  part?: boolean;
  most?: number;
  least?: number;
}

/** Which two groups, by the names of streams or their steps, the report sets against each other. */
export interface Versus {
  by: "path" | "stream";
  a: string;
  b: string;
}

export interface Plan {
  functions: readonly LoadFunction[];
  tenants: readonly LoadTenant[];
  streams: readonly Stream[];
  thresholds: readonly Threshold[];
  versus?: Versus;
  /** The steps are of rising load: where does it bend? */
  findKnee?: boolean;
}

/** One load test: data only. loadtests/scenarios has what k6 runs of it. */
export interface Scenario {
  name: string;
  /** What it shows, in one line. */
  shows: string;
  durationMs: number;
  /** Default: a second. k6 runs no stream for less. */
  shortestMs?: number;
  longestMs: number;
  /** Which of the settings it heeds, for --help and for refusing the others. */
  heeds: readonly ("rate" | "clients" | "isolation")[];
  plan(settings: Settings): Plan;
}

export const plannedOf = ({ perSecond, durationMs }: Step): number =>
  (perSecond * durationMs) / 1000;

/** How many requests a stream sends; undefined for clients, who send as many as are answered. */
export function plannedRequests({ arrival, requests }: Stream): number | undefined {
  if (arrival.kind === "clients") return undefined;
  if (arrival.kind === "once") return requests.length;
  return arrival.steps.reduce((sum, step) => sum + plannedOf(step), 0);
}

/** What its samples are told apart by: its steps, or itself. */
export const partsOf = ({ name, arrival }: Stream): string[] =>
  arrival.kind === "rate" ? arrival.steps.map((step) => step.name) : [name];

/** The step that a moment of a stream falls into, ms after its beginning; after its end the last. */
export function stepAt(steps: readonly Step[], atMs: number): Step {
  let endMs = 0;
  for (const step of steps) {
    endMs += step.durationMs;
    if (atMs < endMs) return step;
  }
  return steps.at(-1) as Step;
}

/**
 * When k6 has the nth request (from 0) of an open stream due, ms after its beginning: with one rate the first at once, with several when the rates
 * have come to a whole request.
 */
export function dueMs(steps: readonly Step[], nth: number): number {
  const n = steps.length > 1 ? nth + 1 : nth;
  let [beganMs, before] = [0, 0];
  for (const step of steps) {
    if (n <= before + plannedOf(step) && step.perSecond > 0)
      return beganMs + ((n - before) * 1000) / step.perSecond;
    before += plannedOf(step);
    beganMs += step.durationMs;
  }
  return beganMs;
}
