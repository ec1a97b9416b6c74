import type { Path, StartKind, VersionSpec } from "#contracts/function";
import type { InvocationRecord } from "#contracts/invocation";
import {
  decidePlacement,
  type PathState,
  type Placement,
  type Refusal,
  type TenantPolicy,
} from "#contracts/placement";
import { PlacementEngine } from "#contracts/placement-engine";
import type { PlacementTable } from "#contracts/placement-table";
import { CloisterError } from "#errors/catalogue";
import { CostBook, type ExpectedCost } from "./cost-book.ts";

/** A start that a call waited for. */
export interface ObservedStart {
  path: Path;
  start: StartKind;
  acquireMs: number;
  memoryPeakBytes: number | undefined;
}

export interface PlacerOptions {
  table: PlacementTable;
  /** What this node can do; undefined while sandboxd cannot be reached. */
  kinds: () => readonly string[] | undefined;
  starts: StartsOfPool;
}

/** What the pool tells of how calls start; asking changes nothing. */
export interface StartsOfPool {
  /** A call now. */
  expected(spec: VersionSpec, path: Path): PathState;
  /** One that finds no sandbox open. */
  next(spec: VersionSpec, path: Path): StartKind;
}

/** What a node has for a version on a path, and what another start there is expected to cost. */
export interface PathOutlook extends PathState, ExpectedCost {
  next: StartKind;
}

/** Places the invocations of one node: the rules, with what this node has and what its starts have cost. */
export class Placer {
  readonly engine: PlacementEngine;
  readonly costs: CostBook;
  readonly #options: PlacerOptions;

  constructor(options: PlacerOptions) {
    this.#options = options;
    this.engine = new PlacementEngine(options.table);
    this.costs = new CostBook(options.table.cost);
  }

  /** What would become of a call, without running it. */
  decide(spec: VersionSpec, policy: TenantPolicy, wanted: Path | undefined): Placement | Refusal {
    const { kinds, starts } = this.#options;
    const { config, needs, versionId } = spec;
    return decidePlacement(
      {
        ...policy,
        isolation: config.isolation,
        runtime: config.runtime,
        wanted,
        needs,
        kinds: kinds(),
        stateOf: (path) => starts.expected(spec, path),
        costOf: (path, start) => this.costs.expect(versionId, path, start),
        last: this.costs.last(versionId),
      },
      this.engine,
    );
  }

  /** Where a call runs, or why it may run nowhere here. */
  place(spec: VersionSpec, policy: TenantPolicy, wanted: Path | undefined): Placement | Refusal {
    const decided = this.decide(spec, policy, wanted);
    if ("path" in decided && decided.byCost) this.costs.chose(spec.versionId, decided.path);
    return decided;
  }

  /** Undefined when this node does not have the path. */
  outlook(spec: VersionSpec, path: Path): PathOutlook | undefined {
    const { kinds, starts } = this.#options;
    if (!kinds()?.includes(path)) return undefined;
    const next = starts.next(spec, path);
    const cost = this.costs.expect(spec.versionId, path, next);
    return { ...starts.expected(spec, path), next, ...cost };
  }

  /** A call has been served by a sandbox that was made for it. */
  started(spec: VersionSpec, { path, start, acquireMs, memoryPeakBytes }: ObservedStart): void {
    this.costs.observe(spec.versionId, path, start, acquireMs, memoryPeakBytes);
  }
}

/** What the record of an invocation tells of its placement. */
export const recordedPlacement = (
  decided: Placement | Refusal | undefined,
): Pick<InvocationRecord, "placementReasons" | "placementRules" | "placementTable"> =>
  decided
    ? {
        placementReasons: decided.reasons,
        placementRules: decided.rules,
        placementTable: decided.table,
      }
    : { placementReasons: [] };

export const refusalError = ({ refused, detail, remedy }: Refusal): CloisterError =>
  new CloisterError(refused, detail, remedy === undefined ? {} : { remedy });
