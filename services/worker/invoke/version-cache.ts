import type { VersionSpec } from "#contracts/function";
import { CloisterError } from "#errors/catalogue";

const MAX_VERSIONS = 10_000;
const LOAD_TIMEOUT_MS = 5000;

/** Immutable versions by id, least recently loaded leaving first; many callers of an unknown one share its load. */
export class VersionCache {
  readonly #read: (versionId: string) => Promise<VersionSpec | undefined>;
  readonly #versions = new Map<string, VersionSpec>();
  readonly #loading = new Map<string, Promise<VersionSpec>>();
  /** Rises with every `dropTenant`: what was read before one is not kept after it. */
  #epoch = 0;

  constructor(read: (versionId: string) => Promise<VersionSpec | undefined>) {
    this.#read = read;
  }

  cached(versionId: string): VersionSpec | undefined {
    return this.#versions.get(versionId);
  }

  /** Those whose versions are known. */
  *tenants(): Iterable<string> {
    for (const { tenantId } of this.#versions.values()) yield tenantId;
  }

  /** Forgets what a tenant had, with the secrets in it. */
  dropTenant(tenantId: string): void {
    this.#epoch++;
    for (const [id, spec] of this.#versions)
      if (spec.tenantId === tenantId) this.#versions.delete(id);
  }

  load(versionId: string): Promise<VersionSpec> {
    let loading = this.#loading.get(versionId);
    if (!loading) {
      loading = this.#load(versionId).finally(() => this.#loading.delete(versionId));
      this.#loading.set(versionId, loading);
    }
    return loading;
  }

  async #load(versionId: string): Promise<VersionSpec> {
    const epoch = this.#epoch;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(
        () => reject(new Error("The database did not answer in time")),
        LOAD_TIMEOUT_MS,
      );
    });
    let spec: VersionSpec | undefined;
    try {
      spec = await Promise.race([this.#read(versionId), late]);
    } catch (error) {
      throw new CloisterError(
        "dependency_unavailable",
        "The function's version could not be read from the database",
        { cause: error instanceof Error ? error.message : String(error) },
      );
    } finally {
      clearTimeout(timer);
    }
    if (!spec) throw new CloisterError("version_not_found");
    if (epoch !== this.#epoch) return spec;
    this.#versions.set(versionId, spec);
    if (this.#versions.size > MAX_VERSIONS) {
      const oldest = this.#versions.keys().next().value;
      if (oldest !== undefined) this.#versions.delete(oldest);
    }
    return spec;
  }
}
