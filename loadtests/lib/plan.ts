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

/** A rate that goes evenly from one value to another. */
export interface Stage {
  fromPerSecond: number;
  toPerSecond: number;
  durationMs: number;
}

export type Arrival =
  /** Open: requests come when they come, however slow the answers are. One that would be the `mostInFlight + 1`st is dropped and counted. */
  | { kind: "rate"; stages: readonly Stage[]; mostInFlight: number }
  /** Closed: each client sends its next request when it has its answer. */
  | { kind: "clients"; clients: number; durationMs: number }
  /** Every request of the list once, all at the same moment. */
  | { kind: "once" };

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
  /** Of one stream; default: of all. */
  stream?: string;
  part?: boolean;
  most?: number;
  least?: number;
}

/** Which two groups the report sets against each other. */
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
  /** The streams are steps of rising load: where does it bend? */
  findKnee?: boolean;
}

/** One load test: data only, so that whatever sends requests can run it. */
export interface Scenario {
  name: string;
  /** What it shows, in one line. */
  shows: string;
  durationMs: number;
  longestMs: number;
  /** Which of the settings it heeds, for --help and for refusing the others. */
  heeds: readonly ("rate" | "clients" | "isolation")[];
  plan(settings: Settings): Plan;
}
