import { CloisterError } from "#errors/catalogue";

export interface BacklogLimits {
  /** Calls that wait in this gateway for room at a node, of all tenants and of one. */
  calls: number;
  callsOfTenant: number;
  /** Bytes of their bodies. */
  bytes: number;
  bytesOfTenant: number;
}

interface Held {
  calls: number;
  bytes: number;
}

/** Bounds what waits, so that a flood costs a bounded amount of memory and is told early. */
export class Backlog {
  readonly #limits: BacklogLimits;
  readonly #all: Held = { calls: 0, bytes: 0 };
  readonly #tenants = new Map<string, Held>();

  constructor(limits: BacklogLimits) {
    this.#limits = limits;
  }

  get calls(): number {
    return this.#all.calls;
  }

  /** Counts another one, or throws: 429 when its tenant has too many, 503 when all have. */
  enter(tenant: string, bytes: number): void {
    const { calls, callsOfTenant, bytes: allBytes, bytesOfTenant } = this.#limits;
    const own = this.#tenants.get(tenant) ?? { calls: 0, bytes: 0 };
    if (own.calls >= callsOfTenant || own.bytes + bytes > bytesOfTenant)
      throw new CloisterError(
        "backlog_full",
        `${own.calls} calls of this tenant wait for room already; at most ${callsOfTenant} may, with bodies of ${bytesOfTenant} bytes`,
      );
    if (this.#all.calls >= calls || this.#all.bytes + bytes > allBytes)
      throw new CloisterError(
        "capacity_exhausted",
        `${this.#all.calls} calls wait for room already, and no more are taken`,
      );
    own.calls++;
    own.bytes += bytes;
    this.#tenants.set(tenant, own);
    this.#all.calls++;
    this.#all.bytes += bytes;
  }

  leave(tenant: string, bytes: number): void {
    const own = this.#tenants.get(tenant);
    if (!own) return;
    own.calls--;
    own.bytes -= bytes;
    if (own.calls === 0) this.#tenants.delete(tenant);
    this.#all.calls--;
    this.#all.bytes -= bytes;
  }
}
