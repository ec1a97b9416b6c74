import type { LiveNode } from "./live-nodes.ts";

/** Share of a node's places that no single tenant gets, so that another finds one at once. */
const RESERVED_SHARE = 0.1;
/** A node where the function is warm is preferred until it has this many more calls per processor than the least busy one. */
const WARM_LEAD = 2;

/** What this gateway has at one node. */
export class NodeRoom<T> {
  readonly node: LiveNode;
  /** What was sent there and has not ended. */
  readonly sent = new Set<T>();
  readonly #tenants = new Map<string, number>();
  #warm: ReadonlySet<string> = new Set();
  #snapshots: ReadonlySet<string> = new Set();
  /** Calls of other gateways, when the node told last. */
  #others = 0;

  constructor(node: LiveNode) {
    this.node = node;
  }

  /** The node has told its numbers. */
  told(): void {
    const { beat } = this.node;
    this.#warm = new Set(beat.warmVersions);
    this.#snapshots = new Set(beat.snapshotVersions);
    this.#others = beat.gateways > 1 ? Math.max(0, beat.invocations - this.sent.size) : 0;
  }

  /** Places at the node that are this gateway's to fill. */
  get places(): number {
    const { concurrency, gateways } = this.node.beat;
    return Math.max(1, Math.ceil(concurrency / Math.max(1, gateways)));
  }

  /** Whether another call of the tenant may be sent. */
  has(tenant: string): boolean {
    const { places } = this;
    if (this.sent.size >= places) return false;
    const reserved = Math.floor(places * RESERVED_SHARE);
    return reserved === 0 || (this.#tenants.get(tenant) ?? 0) < places - reserved;
  }

  /** Calls per processor. */
  get load(): number {
    return (this.sent.size + this.#others) / this.node.beat.processors;
  }

  /** How well it is prepared for a version: 2 warm, 1 has a snapshot, 0 not at all. */
  prepared(versionId: string): number {
    if (this.#warm.has(versionId)) return 2;
    return this.#snapshots.has(versionId) ? 1 : 0;
  }

  add(item: T, tenant: string): void {
    this.sent.add(item);
    this.#tenants.set(tenant, (this.#tenants.get(tenant) ?? 0) + 1);
  }

  delete(item: T, tenant: string): void {
    if (!this.sent.delete(item)) return;
    const left = (this.#tenants.get(tenant) ?? 1) - 1;
    if (left > 0) this.#tenants.set(tenant, left);
    else this.#tenants.delete(tenant);
  }
}

/**
 * The node for a call among those that can serve it: where its function is warm, or has a snapshot, unless that node has much more to do than
 * another; else the one with the least. `lastAt` is where this gateway saw the version served last, which it knows before the node tells. Undefined
 * when none has room.
 */
export function chooseNode<T>(
  rooms: readonly NodeRoom<T>[],
  call: { tenant: string; versionId: string; lastAt: string | undefined },
): NodeRoom<T> | undefined {
  if (rooms.length === 1) return rooms[0]?.has(call.tenant) ? rooms[0] : undefined;
  let least: NodeRoom<T> | undefined;
  let best: NodeRoom<T> | undefined;
  let bestPrepared = 0;
  for (const room of rooms) {
    if (!room.has(call.tenant)) continue;
    if (!least || room.load < least.load) least = room;
    const prepared = room.node.beat.id === call.lastAt ? 3 : room.prepared(call.versionId);
    if (
      prepared > bestPrepared ||
      (prepared > 0 && prepared === bestPrepared && best && room.load < best.load)
    ) {
      best = room;
      bestPrepared = prepared;
    }
  }
  if (best && least && best.load <= least.load + WARM_LEAD) return best;
  return least;
}
