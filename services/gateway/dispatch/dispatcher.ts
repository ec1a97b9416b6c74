import type { Path } from "#contracts/function";
import type { InvocationJob, ReplyMeta } from "#contracts/invocation";
import type { PlacementEngine } from "#contracts/placement-engine";
import type { CallTarget } from "#db/functions";
import type { InvocationProducer } from "#queue/invocation-producer";
import type { QueuedCall } from "#queue/outbox";
import { Backlog, type BacklogLimits } from "./backlog.ts";
import { canServe, type Demand, nodeDemand, type Offer, refusalOf } from "./demand.ts";
import { FairQueue } from "./fair-queue.ts";
import type { LiveNode, LiveNodes } from "./live-nodes.ts";
import { chooseNode, NodeRoom } from "./node-room.ts";
import { TenantFlow } from "./tenant-flow.ts";

/** One invocation on its way to a node. */
export interface Ticket {
  readonly job: InvocationJob;
  /** Nobody can take it. */
  fail(error: unknown): void;
  /** The queue did not take it, as far as can be told. */
  notQueued(error: Error): void;
}

/** Where a ticket is. Whoever submitted it keeps this, to tell what becomes of it. */
export interface Passage {
  readonly ticket: Ticket;
  readonly demand: Demand;
  readonly bytes: number;
  state: "waits" | "sent" | "taken" | "over";
  group: NodeGroup | undefined;
  room: NodeRoom<Passage> | undefined;
  queued: Pick<QueuedCall, "state" | "taken" | "takeBack"> | undefined;
  sentMs: number;
  /** How long it waited at the node; unknown for one that needed a start. */
  waitedMs: number | undefined;
  /** The share of the rest of its time in which its sandbox waited for a processor. */
  stalled: number;
}

/** The nodes that can serve a demand, and what waits for room at one of them. Demands that the same nodes serve share it. */
interface NodeGroup {
  readonly rooms: NodeRoom<Passage>[];
  readonly waiting: FairQueue<Passage>;
  /** Without nodes: when calls are refused, and what ends the wait of those that are there. */
  refusedFromMs: number;
  timer: NodeJS.Timeout | undefined;
}

export interface DispatcherOptions {
  producer: Pick<InvocationProducer, "open" | "add" | "forget">;
  nodes: Pick<LiveNodes, "get" | "values" | "awaited">;
  limits: BacklogLimits;
  /** Rules of this installation; the built-in ones when absent. */
  placement?: PlacementEngine;
}

/** So long after calls of two tenants have come, they are kept from standing in each other's way, ms. */
const MIXED_MS = 30_000;
/**
 * Calls that may wait at the nodes for each of their processors, while there are several tenants: enough that a processor is rarely idle. Those that have
 * calls at the nodes share these, always as if another one had some, too: its next call may come at any moment, and would wait at each of its steps
 * behind what was let in before. Each may have one.
 */
const SLACK_PER_PROCESSOR = 1;
/** With more calls at a node for each of its processors, one that comes later waits there in any case. */
const CROWD_PER_PROCESSOR = 8;
/** Tenants without calls at nodes of whom it is still known what theirs do. */
const FLOWS_KNOWN = 1000;
const DEMANDS_KNOWN = 5000;
const VERSIONS_KNOWN = 10_000;

/**
 * Gives each invocation to a node: at once where one that can serve it has room, else when it has. What waits does so here, not in Redis, where it
 * could not be overtaken; per tenant in order, and tenants take turns. An invocation is in the queue of one node at a time, and leaves it only
 * as long as no worker has taken it.
 */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #backlog: Backlog;
  readonly #rooms = new Map<string, NodeRoom<Passage>>();
  /** By the nodes in them. */
  readonly #groups = new Map<string, NodeGroup>();
  readonly #groupOf = new Map<string, NodeGroup>();
  /** By what the caller wishes. */
  readonly #demands = new WeakMap<CallTarget, Map<Path | undefined, Demand>>();
  readonly #flows = new Map<string, TenantFlow>();
  /** Those with no call at a node, in the order in which they ended: a flood that is held back has none at times, and is to be known still. */
  readonly #idle = new Map<string, TenantFlow>();
  /** Where a version was served last. */
  readonly #lastAt = new Map<string, string>();
  #latestTenant: string | undefined;
  #mixedMs = Number.NEGATIVE_INFINITY;
  #turn = 0;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#backlog = new Backlog(options.limits);
  }

  /** Calls that wait here. */
  get waiting(): number {
    return this.#backlog.calls;
  }

  /** Throws when nobody can serve it, or too much waits. */
  submit(ticket: Ticket, target: CallTarget, wanted: Path | undefined, bytes: number): Passage {
    const { tenantId } = ticket.job;
    const now = performance.now();
    if (tenantId !== this.#latestTenant) {
      if (this.#latestTenant !== undefined) this.#mixedMs = now;
      this.#latestTenant = tenantId;
    }
    const demand = this.#demandOf(target, wanted);
    const group = this.#groupFor(demand);
    if (group.rooms.length === 0 && now >= group.refusedFromMs) throw this.#refusal(demand);
    const passage: Passage = {
      ticket,
      demand,
      bytes,
      state: "waits",
      group: undefined,
      room: undefined,
      queued: undefined,
      sentMs: 0,
      waitedMs: undefined,
      stalled: 0,
    };
    const room = group.waiting.of(tenantId) === 0 ? this.#roomFor(group, passage, now) : undefined;
    if (room) {
      this.#send(passage, room, now);
      return passage;
    }
    this.#backlog.enter(tenantId, bytes);
    passage.group = group;
    group.waiting.add(tenantId, passage);
    return passage;
  }

  /** A worker has announced it. */
  taken(passage: Passage): void {
    if (passage.state !== "sent") return;
    passage.state = "taken";
    passage.queued?.taken();
  }

  /** The head of its answer has come. */
  answered(passage: Passage, { start, phases }: Pick<ReplyMeta, "start" | "phases">): void {
    if (!passage.room) return;
    if (start === "warm" || start === "reset")
      passage.waitedMs = performance.now() - passage.sentMs - (phases.handler_ms ?? 0);
    if (this.#rooms.size > 1) this.#remember(passage.ticket.job.versionId, passage.room);
  }

  /** Its worker has told which share of its time its sandbox waited for a processor, from 0 to 1. */
  stalled(passage: Passage, share: number): void {
    passage.stalled = share;
  }

  /** It has ended, in whatever way. */
  done(passage: Passage): void {
    const { state, room, group, bytes } = passage;
    const { tenantId } = passage.ticket.job;
    passage.state = "over";
    if (state === "waits") {
      if (group?.waiting.delete(tenantId, passage)) this.#backlog.leave(tenantId, bytes);
      return;
    }
    if (!room) return;
    if (state === "sent") void passage.queued?.takeBack();
    this.#leaveRoom(passage);
    if (this.#backlog.calls > 0) this.#pump();
  }

  // What the live nodes say.

  /** A node has told its numbers. */
  told(node: LiveNode): void {
    let room = this.#rooms.get(node.beat.id);
    if (!room) {
      room = new NodeRoom(node);
      this.#rooms.set(node.beat.id, room);
      this.#options.producer.open(node.beat.id);
    }
    room.told();
  }

  /** Another set of nodes is there: who can serve what is found anew. */
  changed(): void {
    const waiting: [string, Passage[]][] = [];
    for (const group of this.#groups.values()) {
      clearTimeout(group.timer);
      waiting.push(...group.waiting.clear());
    }
    this.#groups.clear();
    this.#groupOf.clear();
    for (const [tenant, passages] of waiting)
      for (const one of passages) this.#waitAgain(tenant, one);
    this.#pump();
  }

  /** A node takes no more: what no worker has taken there goes elsewhere. Resolves when it has left that queue. */
  async lost(nodeId: string): Promise<void> {
    const room = this.#rooms.get(nodeId);
    if (!room) return;
    const back: Passage[] = [];
    await Promise.all(
      [...room.sent].map(async (passage) => {
        if (passage.state !== "sent") return;
        const removed = await passage.queued?.takeBack();
        // Its caller may have gone meanwhile; a worker cannot have come.
        if (removed && passage.state === "sent") back.push(passage);
      }),
    );
    const tenants = new Map<string, Passage[]>();
    for (const passage of back) {
      const { tenantId } = passage.ticket.job;
      this.#leaveRoom(passage);
      passage.state = "waits";
      passage.room = undefined;
      const of = tenants.get(tenantId);
      if (of) of.push(passage);
      else tenants.set(tenantId, [passage]);
    }
    for (const [tenant, passages] of tenants) this.#returned(tenant, passages);
    this.#pump();
  }

  /** The node will not come back. */
  left(nodeId: string): void {
    const pulled = this.lost(nodeId);
    this.#rooms.delete(nodeId);
    void pulled.then(() => this.#options.producer.forget(nodeId));
  }

  close(): void {
    for (const { timer } of this.#groups.values()) clearTimeout(timer);
  }

  #demandOf(target: CallTarget, wanted: Path | undefined): Demand {
    let known = this.#demands.get(target);
    if (!known) {
      known = new Map();
      this.#demands.set(target, known);
    }
    let demand = known.get(wanted);
    if (!demand) {
      demand = nodeDemand(target, wanted, this.#options.placement);
      known.set(wanted, demand);
    }
    return demand;
  }

  #groupFor(demand: Demand): NodeGroup {
    const known = this.#groupOf.get(demand.key);
    if (known) return known;
    if (this.#groupOf.size >= DEMANDS_KNOWN) this.#groupOf.clear();
    const rooms: NodeRoom<Passage>[] = [];
    for (const node of this.#options.nodes.values())
      if (node.usable && canServe(demand, offerOf(node)))
        rooms.push(this.#rooms.get(node.beat.id) as NodeRoom<Passage>);
    const key =
      rooms.length > 0 ? rooms.map(({ node }) => node.beat.id).join() : `nobody: ${demand.key}`;
    let group = this.#groups.get(key);
    if (!group) {
      group = {
        rooms,
        waiting: new FairQueue(),
        refusedFromMs: Number.NEGATIVE_INFINITY,
        timer: undefined,
      };
      if (rooms.length === 0) this.#awaitNode(group, demand);
      this.#groups.set(key, group);
    }
    this.#groupOf.set(demand.key, group);
    return group;
  }

  /** Calls wait as long as a node that can serve them is to be expected. */
  #awaitNode(group: NodeGroup, demand: Demand): void {
    const ms = this.#options.nodes.awaited((node) => canServe(demand, offerOf(node)));
    if (ms === 0) return;
    group.refusedFromMs = performance.now() + ms;
    group.timer = setTimeout(() => {
      const error = this.#refusal(demand);
      for (const [tenant, passages] of group.waiting.clear())
        for (const passage of passages) {
          this.#backlog.leave(tenant, passage.bytes);
          passage.ticket.fail(error);
        }
    }, ms);
    group.timer.unref();
  }

  #refusal(demand: Demand): Error {
    const offers = [...this.#options.nodes.values()]
      .filter(({ usable }) => usable)
      .map((node) => offerOf(node));
    return refusalOf(demand, offers);
  }

  /** The node for it now, if it may go now. */
  #roomFor(group: NodeGroup, passage: Passage, now: number): NodeRoom<Passage> | undefined {
    const { tenantId, versionId } = passage.ticket.job;
    if (this.#standsInTheWay(group, tenantId, now)) return undefined;
    const lastAt = group.rooms.length > 1 ? this.#lastAt.get(versionId) : undefined;
    return chooseNode(group.rooms, { tenant: tenantId, versionId, lastAt });
  }

  /** Whether another call of the tenant would only make others wait longer. */
  #standsInTheWay({ rooms }: NodeGroup, tenant: string, now: number): boolean {
    const active = this.#flows.get(tenant);
    const flow = active ?? this.#knownFlow(tenant, now);
    if (!flow) return false;
    const tenants = this.#flows.size + (active ? 0 : 1);
    let processors = 0;
    let mixed = now - this.#mixedMs < MIXED_MS;
    for (const { node } of rooms) {
      processors += node.beat.processors;
      mixed ||= node.beat.tenants > 1;
    }
    const slack = (SLACK_PER_PROCESSOR * processors) / Math.max(2, tenants);
    return mixed && flow.full(Math.max(1, slack));
  }

  /** What was known of a tenant that has no call at a node. */
  #knownFlow(tenant: string, now: number): TenantFlow | undefined {
    const flow = this.#idle.get(tenant);
    return flow && now - flow.idleMs < MIXED_MS ? flow : undefined;
  }

  #send(passage: Passage, room: NodeRoom<Passage>, now: number): void {
    const { job } = passage.ticket;
    passage.state = "sent";
    passage.group = undefined;
    passage.room = room;
    passage.sentMs = now;
    room.add(passage, job.tenantId);
    let flow = this.#flows.get(job.tenantId);
    if (!flow) {
      flow = this.#knownFlow(job.tenantId, now) ?? new TenantFlow();
      this.#idle.delete(job.tenantId);
      this.#flows.set(job.tenantId, flow);
    }
    flow.underWay++;
    passage.queued = this.#options.producer.add(
      job,
      room.node.beat.id,
      (error) => passage.ticket.notQueued(error),
      room.load > CROWD_PER_PROCESSOR,
    );
  }

  #leaveRoom(passage: Passage): void {
    const { tenantId } = passage.ticket.job;
    passage.room?.delete(passage, tenantId);
    const flow = this.#flows.get(tenantId);
    if (!flow) return;
    flow.underWay--;
    if (passage.waitedMs !== undefined)
      flow.ended(performance.now() - passage.sentMs, passage.waitedMs, passage.stalled);
    if (flow.underWay > 0) return;
    this.#flows.delete(tenantId);
    flow.idleMs = performance.now();
    this.#idle.set(tenantId, flow);
    if (this.#idle.size <= FLOWS_KNOWN) return;
    const longest = this.#idle.keys().next().value;
    if (longest !== undefined) this.#idle.delete(longest);
  }

  /** Gives what waits to nodes with room. Groups that share nodes begin in turn. */
  #pump(): void {
    const groups = [...this.#groups.values()].filter(({ waiting }) => waiting.size > 0);
    this.#turn++;
    for (let n = 0; n < groups.length; n++)
      this.#serve(groups[(this.#turn + n) % groups.length] as NodeGroup);
  }

  #serve(group: NodeGroup): void {
    const { rooms, waiting } = group;
    const now = performance.now();
    while (waiting.size > 0 && rooms.some(({ sent, places }) => sent.size < places)) {
      let places = 0;
      for (const room of rooms) places += room.places;
      const share = places / waiting.tenants;
      let room: NodeRoom<Passage> | undefined;
      let looked: Passage | undefined;
      const passage = waiting.take((tenant, first) => {
        const found = this.#roomFor(group, first, now);
        if (!found) return "no";
        room = found;
        looked = first;
        return (this.#flows.get(tenant)?.underWay ?? 0) < share ? "entitled" : "may";
      });
      if (!passage) return;
      this.#backlog.leave(passage.ticket.job.tenantId, passage.bytes);
      if (looked !== passage) room = this.#roomFor(group, passage, now);
      this.#send(passage, room as NodeRoom<Passage>, now);
    }
  }

  #waitAgain(tenant: string, passage: Passage): void {
    const group = this.#groupFor(passage.demand);
    if (group.rooms.length === 0 && performance.now() >= group.refusedFromMs) {
      this.#backlog.leave(tenant, passage.bytes);
      passage.ticket.fail(this.#refusal(passage.demand));
      return;
    }
    passage.group = group;
    group.waiting.add(tenant, passage);
  }

  /** Calls that were in a queue already go before all others of their tenant, and are not refused for want of room to wait. */
  #returned(tenant: string, passages: Passage[]): void {
    const groups = new Map<NodeGroup, Passage[]>();
    for (const passage of passages) {
      const group = this.#groupFor(passage.demand);
      try {
        if (group.rooms.length === 0 && performance.now() >= group.refusedFromMs)
          throw this.#refusal(passage.demand);
        this.#backlog.enter(tenant, passage.bytes);
      } catch (error) {
        passage.ticket.fail(error);
        continue;
      }
      passage.group = group;
      const of = groups.get(group);
      if (of) of.push(passage);
      else groups.set(group, [passage]);
    }
    for (const [group, of] of groups) group.waiting.addFirst(tenant, of);
  }

  #remember(versionId: string, room: NodeRoom<Passage>): void {
    const { id } = room.node.beat;
    if (this.#lastAt.get(versionId) === id) return;
    this.#lastAt.delete(versionId);
    this.#lastAt.set(versionId, id);
    if (this.#lastAt.size <= VERSIONS_KNOWN) return;
    const oldest = this.#lastAt.keys().next().value;
    if (oldest !== undefined) this.#lastAt.delete(oldest);
  }
}

const offerOf = ({ kinds, images, beat }: LiveNode): Offer => ({
  kinds,
  images,
  memoryMb: beat.memoryMb,
});
