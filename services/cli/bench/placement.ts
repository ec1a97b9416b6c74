import { functionConfigSchema, type Path, type VersionSpec } from "#contracts/function";
import type { Need } from "#contracts/need-kinds";
import type { TenantPolicy } from "#contracts/placement";
import { PLACEMENT_TABLE } from "#contracts/placement-table";
import { Placer, SandboxPool } from "../../worker/placement/index.ts";
import { ProcessLauncher } from "../../worker/sandbox/index.ts";
import { type HostFacts, hostFacts } from "../host/facts.ts";

/** Versions that calls come of in turn, so that no decision finds only what the one before it has left in the processor's caches. */
const VERSIONS = 1000;
const WARM_UP = 5000;

export interface PlacementCase {
  case: string;
  n: number;
  p50_us: number;
  p99_us: number;
  max_us: number;
}

export interface PlacementReport {
  host: HostFacts;
  table: string;
  /** What reading the clock twice takes, which is part of every figure. */
  clock_us: number;
  cases: PlacementCase[];
}

interface Case {
  name: string;
  isolation: "auto" | Path;
  policy: TenantPolicy;
  wanted?: Path;
  needs?: Need[];
}

const trusted = { tier: "trusted" } as const;
const CASES: Case[] = [
  { name: "the function names its path", isolation: "container", policy: trusted },
  { name: "auto, a standard tenant", isolation: "auto", policy: { tier: "standard" } },
  { name: "the caller names a path", isolation: "auto", policy: trusted, wanted: "microvm" },
  { name: "auto, a trusted tenant, by cost", isolation: "auto", policy: trusted },
  {
    name: "auto, a trusted tenant, by need",
    isolation: "auto",
    policy: { ...trusted, paths: ["container", "microvm"] },
    needs: ["subprocess"],
  },
  {
    name: "refused",
    isolation: "auto",
    policy: { tier: "untrusted", minimumIsolation: "microvm" },
    needs: ["subprocess"],
  },
];

/** How long the worker takes to place a call: rules, what its pool has, and what starts have cost, as when it serves. Starts nothing. */
export async function benchPlacement(n: number, signal: AbortSignal): Promise<PlacementReport> {
  const pool = new SandboxPool({
    launcher: new ProcessLauncher(() => []),
    bundles: { hold: () => Promise.reject(new Error("nothing is started here")) },
    memoryMb: 1024,
    idleMs: 1000,
    prepared: [],
    demandCells: 0,
  });
  const placer = new Placer({
    table: PLACEMENT_TABLE,
    kinds: () => ["container", "microvm"],
    starts: pool.starts,
  });
  const cases: PlacementCase[] = [];
  for (const one of CASES) {
    if (signal.aborted) break;
    const specs = Array.from({ length: VERSIONS }, (_, index) => specOf(one, index));
    for (const spec of specs)
      for (const path of ["container", "microvm"] as const)
        placer.started(spec, { path, start: "cold", acquireMs: 100, memoryPeakBytes: 2 ** 24 });
    const place = (round: number): void =>
      void placer.place(specs[round % VERSIONS] as VersionSpec, one.policy, one.wanted);
    for (let round = 0; round < WARM_UP; round++) place(round);
    const times = new Float64Array(n);
    for (let round = 0; round < n; round++) {
      const began = performance.now();
      place(round);
      times[round] = performance.now() - began;
    }
    cases.push({ case: one.name, ...figures(times) });
  }
  await pool.close(1000);
  return { host: hostFacts(), table: PLACEMENT_TABLE.version, clock_us: clockUs(n), cases };
}

function specOf({ isolation, needs = [] }: Case, index: number): VersionSpec {
  const id = `${isolation}_${needs.join("_")}_${index}`;
  return {
    versionId: `ver_${id}`,
    functionId: `fn_${id}`,
    tenantId: "ten_bench",
    name: "bench",
    version: 1,
    bundleDigest: "0".repeat(64),
    config: functionConfigSchema.parse({ name: "bench", isolation }),
    needs,
  };
}

function figures(times: Float64Array): Omit<PlacementCase, "case"> {
  const sorted = times.sort();
  const at = (part: number): number =>
    Math.round((sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)] ?? 0) * 1e6) / 1000;
  return { n: sorted.length, p50_us: at(0.5), p99_us: at(0.99), max_us: at(1) };
}

function clockUs(n: number): number {
  const times = new Float64Array(n);
  for (let round = 0; round < n; round++) {
    const began = performance.now();
    times[round] = performance.now() - began;
  }
  return figures(times).p50_us;
}
