import { RefreshingCache } from "#cache/refreshing-cache";
import type { CallTarget } from "#db/functions";
import { CloisterError } from "#errors/catalogue";

export interface FunctionResolverOptions {
  resolve: (tenantId: string, name: string, version?: number) => Promise<CallTarget | undefined>;
  onProblem: (error: Error) => void;
}

const FRESH_MS = 5000;
const AHEAD_MS = 1000;
const ABSENT_MS = 1000;
/** While the database is away, functions that were called before go on this long. */
const STALE_MS = 300_000;
const MAX_FUNCTIONS = 20_000;

/** A function as a caller names it: `name` or `name@version`. */
export interface FunctionAddress {
  name: string;
  version: number | undefined;
}

const ADDRESS = /^([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:@(.{1,128}))?$/s;

/** Reads `name[@version]`; throws `function_not_found` or `version_not_found` for what can be neither. */
export function parseFunctionAddress(text: string): FunctionAddress {
  const match = ADDRESS.exec(text);
  if (!match)
    throw new CloisterError("function_not_found", "No function can have the name in the address");
  const [, name = "", version] = match;
  if (version === undefined) return { name, version: undefined };
  if (!/^[1-9]\d{0,8}$/.test(version))
    throw new CloisterError(
      "version_not_found",
      `${name} has no version or alias of that name; versions are numbers`,
    );
  return { name, version: Number(version) };
}

/** Which version a call meets, kept in memory for 5 s. */
export class FunctionResolver {
  readonly #targets: RefreshingCache<CallTarget>;

  constructor(options: FunctionResolverOptions) {
    this.#targets = new RefreshingCache({
      load(key) {
        const [tenantId = "", name = "", version = ""] = key.split(" ");
        return options.resolve(tenantId, name, version === "" ? undefined : Number(version));
      },
      freshMs: FRESH_MS,
      aheadMs: AHEAD_MS,
      absentMs: ABSENT_MS,
      staleMs: STALE_MS,
      maxEntries: MAX_FUNCTIONS,
      onProblem: options.onProblem,
    });
  }

  /** The target at once when it is in memory. Throws or rejects with `function_not_found`, `version_not_found` or `dependency_unavailable`. */
  resolve(tenantId: string, { name, version }: FunctionAddress): CallTarget | Promise<CallTarget> {
    const found = this.#targets.get(`${tenantId} ${name} ${version ?? ""}`);
    if (found instanceof Promise) return found.then((target) => present(target, name, version));
    return present(found, name, version);
  }

  /** What concerns the function is asked for again at the next call. */
  drop(functionId: string): void {
    this.#targets.drop((target) => target.functionId === functionId);
  }

  /** The same for all that a tenant has. */
  dropTenant(tenantId: string): void {
    this.#targets.drop((target) => target.tenantId === tenantId);
  }

  expire(): void {
    this.#targets.expire();
  }
}

function present(
  target: CallTarget | undefined,
  name: string,
  version: number | undefined,
): CallTarget {
  if (target) return target;
  if (version === undefined)
    throw new CloisterError("function_not_found", `There is no function ${name}`);
  throw new CloisterError("version_not_found", `There is no ${name}@${version}`);
}
