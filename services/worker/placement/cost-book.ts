import type { Path, StartKind } from "#contracts/function";
import { type Cost, type CostRules, priorOf } from "#contracts/placement-table";

/** Versions whose starts are remembered; the one that started longest ago is forgotten first. */
const MAX_VERSIONS = 10_000;
/** One start counts at most this many times what was expected: a machine that stood still tells nothing of a path. */
const MAX_SURPRISE = 8;
/** Below this a start is never a surprise, ms. */
const UNSURPRISING_MS = 50;
/** More observations than this do not make an estimate surer, so that it follows what changes. */
const MAX_WEIGHT = 32;
const MIB = 1024 * 1024;

/** What starts of one kind cost on one path, on average, those long ago counting less. */
interface Estimate {
  acquireMs: number;
  memoryMb: number;
  /** Observations, each halved with every half-life since. */
  weight: number;
  /** Of those that told their memory. */
  memoryWeight: number;
  atMs: number;
}

/** What the next start of a path is expected to cost, and by how many observations of the version itself. */
export interface ExpectedCost extends Cost {
  observed: number;
}

type Estimates = Partial<Record<`${Path} ${StartKind}`, Estimate>>;

/**
 * What starts have cost on this node, by version and over all, by path and by how they began, from what invocations met; nothing is tried out to learn
 * it. A version's estimate is drawn towards the overall one, and that towards the table's prior, the more the fewer and older the
 * observations are: so a path that was dear an hour ago is not shunned for ever.
 */
export class CostBook {
  readonly #rules: CostRules;
  readonly #now: () => number;
  readonly #overall: Estimates = {};
  readonly #versions = new Map<string, Estimates & { last?: Path }>();

  constructor(rules: CostRules, now: () => number = () => performance.now()) {
    this.#rules = rules;
    this.#now = now;
  }

  /** A call waited `acquireMs` for its sandbox to be made; the most memory that has had, bytes, where it is known. */
  observe(
    versionId: string,
    path: Path,
    start: StartKind,
    acquireMs: number,
    memoryPeakBytes: number | undefined,
  ): void {
    const expected = this.expect(versionId, path, start).acquireMs;
    const bounded = Math.min(acquireMs, MAX_SURPRISE * Math.max(expected, UNSURPRISING_MS));
    const memoryMb = memoryPeakBytes === undefined ? undefined : memoryPeakBytes / MIB;
    this.#add(this.#overall, `${path} ${start}`, bounded, memoryMb);
    this.#add(this.#of(versionId), `${path} ${start}`, bounded, memoryMb);
  }

  /** What a start of a version is expected to cost now. */
  expect(versionId: string, path: Path, start: StartKind): ExpectedCost {
    const overall = this.overall(path, start);
    const known = this.#versions.get(versionId)?.[`${path} ${start}`];
    const faded = known ? this.#faded(known) : 1;
    const observed = known ? known.weight * faded : 0;
    return { ...this.#blend(overall, known, faded), observed };
  }

  /** The same, whatever the function. */
  overall(path: Path, start: StartKind): Cost {
    const known = this.#overall[`${path} ${start}`];
    return this.#blend(priorOf(this.#rules, path, start), known, known ? this.#faded(known) : 1);
  }

  /** The path that was last chosen for a version by what paths cost. */
  last(versionId: string): Path | undefined {
    return this.#versions.get(versionId)?.last;
  }

  chose(versionId: string, path: Path): void {
    const known = this.#versions.get(versionId);
    if (known?.last === path) return;
    this.#of(versionId).last = path;
  }

  #blend(prior: Cost, known: Estimate | undefined, faded: number): Cost {
    if (!known) return prior;
    const { priorWeight } = this.#rules;
    const toward = (before: number, seen: number, weight: number): number =>
      (before * priorWeight + seen * weight) / (priorWeight + weight);
    return {
      acquireMs: toward(prior.acquireMs, known.acquireMs, known.weight * faded),
      memoryMb: toward(prior.memoryMb, known.memoryMb, known.memoryWeight * faded),
    };
  }

  #faded({ atMs }: Estimate): number {
    return 0.5 ** ((this.#now() - atMs) / this.#rules.halfLifeMs);
  }

  #add(
    estimates: Estimates,
    key: keyof Estimates,
    acquireMs: number,
    memoryMb: number | undefined,
  ): void {
    let known = estimates[key];
    if (!known) {
      known = { acquireMs: 0, memoryMb: 0, weight: 0, memoryWeight: 0, atMs: this.#now() };
      estimates[key] = known;
    }
    const faded = this.#faded(known);
    known.atMs = this.#now();
    known.weight = Math.min(known.weight * faded + 1, MAX_WEIGHT);
    known.acquireMs += (acquireMs - known.acquireMs) / known.weight;
    known.memoryWeight *= faded;
    if (memoryMb === undefined) return;
    known.memoryWeight = Math.min(known.memoryWeight + 1, MAX_WEIGHT);
    known.memoryMb += (memoryMb - known.memoryMb) / known.memoryWeight;
  }

  #of(versionId: string): Estimates & { last?: Path } {
    const known = this.#versions.get(versionId) ?? {};
    this.#versions.delete(versionId);
    this.#versions.set(versionId, known);
    if (this.#versions.size > MAX_VERSIONS) {
      const oldest = this.#versions.keys().next().value;
      if (oldest !== undefined) this.#versions.delete(oldest);
    }
    return known;
  }
}
