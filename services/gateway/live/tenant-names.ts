/** Names kept at once; when there are more all are read anew. */
const MAX_NAMES = 10_000;

/** Names of tenants, which never change, read once. */
export class TenantNames {
  readonly #read: (ids: string[]) => Promise<Map<string, string>>;
  #known = new Map<string, string>();

  constructor(read: (ids: string[]) => Promise<Map<string, string>>) {
    this.#read = read;
  }

  /** Those of `ids` that can be read. Never rejects. */
  async of(ids: Iterable<string>): Promise<ReadonlyMap<string, string>> {
    const missing = [...new Set(ids)].filter((id) => !this.#known.has(id));
    if (missing.length > 0) {
      if (this.#known.size + missing.length > MAX_NAMES) this.#known = new Map();
      const found = await this.#read(missing).catch(() => new Map<string, string>());
      for (const [id, name] of found) this.#known.set(id, name);
    }
    return this.#known;
  }
}
