/** Tenants looked at for one turn: most often the first may, and a turn must not cost more the more tenants wait. */
const LOOKED_AT = 64;

/** What waits, first come first served within a tenant. Whose turn it is goes round among the tenants. */
export class FairQueue<T> {
  /** In the order of their turns: whoever had one goes to the end. */
  readonly #tenants = new Map<string, Set<T>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Tenants of whom something waits. */
  get tenants(): number {
    return this.#tenants.size;
  }

  /** How much of a tenant's waits. */
  of(tenant: string): number {
    return this.#tenants.get(tenant)?.size ?? 0;
  }

  add(tenant: string, item: T): void {
    const items = this.#tenants.get(tenant);
    if (items) items.add(item);
    else this.#tenants.set(tenant, new Set([item]));
    this.#size++;
  }

  /** Puts back what had its turn already: before all else of its tenant, in the order given. */
  addFirst(tenant: string, items: readonly T[]): void {
    const later = this.#tenants.get(tenant);
    const all = new Set([...items, ...(later ?? [])]);
    this.#size += all.size - (later?.size ?? 0);
    this.#tenants.set(tenant, all);
  }

  /** False when it does not wait here. */
  delete(tenant: string, item: T): boolean {
    const items = this.#tenants.get(tenant);
    if (!items?.delete(item)) return false;
    if (items.size === 0) this.#tenants.delete(tenant);
    this.#size--;
    return true;
  }

  /**
   * The next one: of the first tenant in turn that is entitled, or, when nobody is, of the first that at least may. `may` tells which; it is asked
   * about a bounded number of tenants.
   */
  take(may: (tenant: string, first: T) => "entitled" | "may" | "no"): T | undefined {
    let second: string | undefined;
    let looked = 0;
    for (const [tenant, items] of this.#tenants) {
      const verdict = may(tenant, items.values().next().value as T);
      if (verdict === "entitled") return this.#serve(tenant, items);
      if (verdict === "may") second ??= tenant;
      if (++looked >= LOOKED_AT && second !== undefined) break;
    }
    const items = second === undefined ? undefined : this.#tenants.get(second);
    return items && this.#serve(second as string, items);
  }

  /** Everything, and nothing is left: by tenant, in order. */
  clear(): [string, T[]][] {
    const all = [...this.#tenants].map(([tenant, items]): [string, T[]] => [tenant, [...items]]);
    this.#tenants.clear();
    this.#size = 0;
    return all;
  }

  #serve(tenant: string, items: Set<T>): T {
    const item = items.values().next().value as T;
    items.delete(item);
    this.#size--;
    this.#tenants.delete(tenant);
    if (items.size > 0) this.#tenants.set(tenant, items);
    return item;
  }
}
