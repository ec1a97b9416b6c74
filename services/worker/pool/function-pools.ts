import type { Path, VersionSpec } from "#contracts/function";
import { FunctionPool } from "./function-pool.ts";

const keyOf = ({ tenantId, versionId }: VersionSpec, path: Path): string =>
  `${tenantId}/${versionId}/${path}`;

/** What the pool knows of each version on each path, as long as there is something of it. */
export class FunctionPools {
  readonly #byKey = new Map<string, FunctionPool>();
  /** By function, to find other versions. */
  readonly #versions = new Map<string, Set<FunctionPool>>();
  readonly #superseded: (owner: FunctionPool) => void;

  /** `superseded` hears of each whose version a newer one has replaced, once. */
  constructor(superseded: (owner: FunctionPool) => void) {
    this.#superseded = superseded;
  }

  all(): Iterable<FunctionPool> {
    return this.#byKey.values();
  }

  /** Whether one of them is. */
  sated(busy: () => boolean): boolean {
    const nowMs = performance.now();
    for (const owner of this.#byKey.values()) if (owner.sated(nowMs, busy)) return true;
    return false;
  }

  /** Versions of which a sandbox lives, at most `max`: those that began last. */
  alive(max: number): string[] {
    const found = new Set<string>();
    for (const { entries, spec } of this.#byKey.values())
      if (entries.size > 0) found.add(spec.versionId);
    return [...found].slice(-max);
  }

  byKey(key: string): FunctionPool | undefined {
    return this.#byKey.get(key);
  }

  find(spec: VersionSpec, path: Path): FunctionPool | undefined {
    return this.#byKey.get(keyOf(spec, path));
  }

  /** It is begun where nothing is known. */
  of(spec: VersionSpec, path: Path): FunctionPool {
    const key = keyOf(spec, path);
    return this.#byKey.get(key) ?? this.#add(key, spec, path);
  }

  /** All versions of a function. */
  versionsOf(functionId: string): Iterable<FunctionPool> {
    return this.#versions.get(functionId) ?? [];
  }

  supersede(owner: FunctionPool): void {
    if (owner.superseded) return;
    owner.superseded = true;
    this.#superseded(owner);
  }

  forgetIfEmpty(owner: FunctionPool): void {
    if (!owner.empty || this.#byKey.get(owner.key) !== owner) return;
    this.#byKey.delete(owner.key);
    const versions = this.#versions.get(owner.spec.functionId);
    versions?.delete(owner);
    if (versions?.size === 0) this.#versions.delete(owner.spec.functionId);
  }

  #add(key: string, spec: VersionSpec, path: Path): FunctionPool {
    const owner = new FunctionPool(key, spec, path);
    this.#byKey.set(key, owner);
    let versions = this.#versions.get(spec.functionId);
    if (!versions) {
      versions = new Set();
      this.#versions.set(spec.functionId, versions);
    }
    for (const other of versions) {
      if (other.spec.version < spec.version) this.supersede(other);
      else if (other.spec.version > spec.version) owner.superseded = true;
    }
    versions.add(owner);
    return owner;
  }
}
