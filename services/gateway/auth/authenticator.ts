import { RefreshingCache } from "#cache/refreshing-cache";
import { type KeyRecord, matchSecret, parseKey, type Scope } from "#db/keys";
import { CloisterError } from "#errors/catalogue";

/** Who calls, as a valid key tells. */
export interface Caller {
  keyId: string;
  tenantId: string;
  scopes: readonly Scope[];
  /** The key is the operator's: with the scope admin it governs all tenants. */
  operator: boolean;
}

export interface AuthenticatorOptions {
  readKey: (id: string) => Promise<KeyRecord | undefined>;
  /** Notes when keys were last used. */
  touchKeys: (usedAtMs: ReadonlyMap<string, number>) => Promise<void>;
  onProblem: (error: Error) => void;
}

const FRESH_MS = 5000;
const AHEAD_MS = 1000;
const ABSENT_MS = 1000;
/** A revoked key may go on this long, and only while the database cannot be asked. */
const STALE_MS = 300_000;
const MAX_KEYS = 10_000;
const TOUCH_MS = 60_000;
/** RFC 6750, 2.1. The scheme's case does not matter (RFC 9110, 11.1). */
const BEARER = /^bearer +(\S+) *$/i;

/** The token of an Authorization header; undefined when it holds none. */
export const bearerToken = (authorization: string | undefined): string | undefined =>
  authorization === undefined ? undefined : BEARER.exec(authorization)?.[1];

/** Whether a token is meant for Cloister; others may be a function's own business. */
export const isCloisterToken = (token: string | undefined): token is string =>
  token?.startsWith("cl_") === true;

/** Keys, kept in memory for 5 s. */
export class Authenticator {
  readonly #options: AuthenticatorOptions;
  readonly #keys: RefreshingCache<KeyRecord>;
  readonly #used = new Map<string, number>();
  readonly #timer: NodeJS.Timeout;

  constructor(options: AuthenticatorOptions) {
    this.#options = options;
    this.#keys = new RefreshingCache({
      load: options.readKey,
      freshMs: FRESH_MS,
      aheadMs: AHEAD_MS,
      absentMs: ABSENT_MS,
      staleMs: STALE_MS,
      maxEntries: MAX_KEYS,
      onProblem: options.onProblem,
    });
    this.#timer = setInterval(() => void this.#touch(), TOUCH_MS);
    this.#timer.unref();
  }

  /** The caller at once when the key is in memory, else a promise. Throws or rejects with `unauthenticated` or `forbidden`. */
  authenticate(token: string | undefined, scope: Scope): Caller | Promise<Caller> {
    if (token === undefined)
      throw new CloisterError("unauthenticated", "The request has no Authorization: Bearer header");
    const parsed = parseKey(token);
    if (!parsed) throw new CloisterError("unauthenticated", "The key is not valid");
    const found = this.#keys.get(parsed.id);
    return found instanceof Promise
      ? found.then((key) => this.#check(key, parsed.secret, scope))
      : this.#check(found, parsed.secret, scope);
  }

  drop(kind: "key" | "tenant", id: string): void {
    this.#keys.drop((key) => (kind === "key" ? key.id : key.tenantId) === id);
  }

  expire(): void {
    this.#keys.expire();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#touch();
  }

  #check(key: KeyRecord | undefined, secret: string, scope: Scope): Caller {
    const secretIs = key && matchSecret(key, secret);
    // One sentence for all of them: which part is wrong is nobody's business.
    if (!key || !secretIs) throw new CloisterError("unauthenticated", "The key is not valid");
    if (key.revoked) throw new CloisterError("unauthenticated", "The key was revoked");
    const now = Date.now();
    if (secretIs === "previous" && (key.previous?.untilMs ?? 0) <= now)
      throw new CloisterError("unauthenticated", "The key was rotated, and this is its old secret");
    if (key.expiresAtMs !== undefined && key.expiresAtMs <= now)
      throw new CloisterError("unauthenticated", "The key has expired");
    if (!key.tenantActive)
      throw new CloisterError("tenant_suspended", "New work is refused until it is resumed");
    if (!key.scopes.includes(scope))
      throw new CloisterError("forbidden", `The key lacks the scope ${scope}`);
    this.#used.set(key.id, now);
    const { id, tenantId, scopes, operator } = key;
    return { keyId: id, tenantId, scopes, operator };
  }

  async #touch(): Promise<void> {
    if (this.#used.size === 0) return;
    const used = new Map(this.#used);
    this.#used.clear();
    await this.#options.touchKeys(used).catch(this.#options.onProblem);
  }
}
