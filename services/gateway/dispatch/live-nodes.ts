import { randomUUID } from "node:crypto";
import { NODE_TTL_MS, type NodeHeartbeat, nodeMessageSchema } from "#queue/nodes";

/** A node as this gateway knows it. */
export interface LiveNode {
  beat: NodeHeartbeat;
  /** Whether jobs may go to it now. */
  usable: boolean;
  /** What it can make, also while its sandboxd is away for a moment. */
  kinds: readonly string[];
  images: readonly string[];
  heardMs: number;
  /** Asked when a connection to it broke, until it answers. */
  question: string | undefined;
  askedMs: number;
}

export interface LiveNodesOptions {
  /** Asks Redis who is there. */
  read: () => Promise<NodeHeartbeat[]>;
  /** Asks one node to tell of itself. */
  ask: (id: string, question: string) => void;
  /** A node came, left, or can do something else than before. */
  changed: () => void;
  /** A node can take no more jobs, and what waits in its queue should not wait there. */
  lost: (id: string) => void;
  /** A node is gone and its id will not come back. */
  left: (id: string) => void;
  /** A node has told its numbers. */
  told: (node: LiveNode) => void;
  onProblem: (error: Error) => void;
}

/** What a node that left, or the first one, is waited for before calls are refused, ms: a worker is back within a few seconds. */
export const RETURN_MS = 10_000;
/**
 * The live nodes, in memory: they tell of themselves, and Redis is asked only at the start, after an outage, and before one that has fallen
 * silent is given up.
 */
export class LiveNodes {
  readonly #options: LiveNodesOptions;
  readonly #nodes = new Map<string, LiveNode>();
  /** Nodes that left within RETURN_MS. */
  readonly #departed = new Map<string, { node: LiveNode; atMs: number }>();
  readonly #startedMs = performance.now();
  #heardAny = false;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: LiveNodesOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#nodes.size;
  }

  /** Those that take jobs now. */
  get usable(): number {
    let count = 0;
    for (const { usable } of this.#nodes.values()) if (usable) count++;
    return count;
  }

  get(id: string): LiveNode | undefined {
    return this.#nodes.get(id);
  }

  values(): IterableIterator<LiveNode> {
    return this.#nodes.values();
  }

  /** How much longer a node for which `fits` holds may come (back), ms; 0 when none is to be expected. */
  awaited(fits: (node: LiveNode) => boolean): number {
    const now = performance.now();
    let untilMs = this.#heardAny ? 0 : this.#startedMs + RETURN_MS;
    for (const [id, { node, atMs }] of this.#departed) {
      if (atMs + RETURN_MS <= now) this.#departed.delete(id);
      else if (fits(node)) untilMs = Math.max(untilMs, atMs + RETURN_MS);
    }
    for (const node of this.#nodes.values())
      if (!node.usable && fits(node)) untilMs = Math.max(untilMs, now + RETURN_MS);
    return Math.max(0, untilMs - now);
  }

  /** A message of NODES_CHANNEL. */
  hear(message: unknown): void {
    const parsed = nodeMessageSchema.safeParse(message);
    if (!parsed.success) {
      this.#options.onProblem(new Error("A message about nodes cannot be read"));
      return;
    }
    if ("gone" in parsed.data) this.#leave(parsed.data.gone);
    else this.#beat(parsed.data.node, parsed.data.answers);
  }

  /** A connection of it was closed: it may have died, and gets nothing until it answers. */
  suspect(id: string): void {
    const node = this.#nodes.get(id);
    if (!node) return;
    node.question = randomUUID();
    node.askedMs = performance.now();
    this.#options.ask(id, node.question);
    this.#judge(node);
  }

  /** Asks Redis; what this gateway knows stays as it is when Redis cannot tell. */
  async refresh(): Promise<void> {
    const askedMs = performance.now();
    let nodes: NodeHeartbeat[];
    try {
      nodes = await this.#options.read();
    } catch (error) {
      this.#options.onProblem(error as Error);
      this.#watch(NODE_TTL_MS / 2);
      return;
    }
    if (this.#closed) return;
    for (const beat of nodes) this.#beat(beat);
    const there = new Set(nodes.map(({ id }) => id));
    for (const [id, node] of this.#nodes)
      if (!there.has(id) && node.heardMs + NODE_TTL_MS <= askedMs) this.#leave(id);
    this.#watch();
  }

  /** What was said meanwhile is lost: silence until now means nothing. */
  reconnected(): void {
    const now = performance.now();
    for (const node of this.#nodes.values()) node.heardMs = now;
    void this.refresh();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #beat(beat: NodeHeartbeat, answers?: string): void {
    const now = performance.now();
    const known = this.#nodes.get(beat.id);
    if (!known) {
      if (beat.draining) return;
      this.#heardAny = true;
      const node: LiveNode = {
        beat,
        usable: beat.sandboxd,
        kinds: beat.kinds,
        images: Object.keys(beat.images),
        heardMs: now,
        question: undefined,
        askedMs: 0,
      };
      this.#nodes.set(beat.id, node);
      this.#options.told(node);
      this.#options.changed();
      this.#watch();
      return;
    }
    if (beat.atMs < known.beat.atMs) return;
    const { beat: before } = known;
    known.beat = beat;
    known.heardMs = now;
    // One that was asked long ago and still speaks did not hear the question.
    if (known.question === answers || now - known.askedMs >= NODE_TTL_MS / 2)
      known.question = undefined;
    this.#options.told(known);
    const other = beat.sandboxd && !same(before, beat);
    if (beat.sandboxd) {
      known.kinds = beat.kinds;
      known.images = Object.keys(beat.images);
    }
    if (!this.#judge(known) && other) this.#options.changed();
  }

  /** Whether it changed what may be sent there. */
  #judge(node: LiveNode): boolean {
    const { beat } = node;
    const usable = beat.sandboxd && !beat.draining && node.question === undefined;
    if (usable === node.usable) return false;
    node.usable = usable;
    if (!usable) this.#options.lost(beat.id);
    this.#options.changed();
    return true;
  }

  #leave(id: string): void {
    const node = this.#nodes.get(id);
    if (!node) return;
    this.#nodes.delete(id);
    node.usable = false;
    this.#departed.set(id, { node, atMs: performance.now() });
    this.#options.lost(id);
    this.#options.left(id);
    this.#options.changed();
  }

  /** One timer: for the node that will have been silent too long first. */
  #watch(inMs?: number): void {
    clearTimeout(this.#timer);
    if (this.#closed || this.#nodes.size === 0) return;
    let firstMs = Number.POSITIVE_INFINITY;
    for (const { heardMs } of this.#nodes.values()) firstMs = Math.min(firstMs, heardMs);
    const waitMs = inMs ?? firstMs + NODE_TTL_MS - performance.now();
    this.#timer = setTimeout(() => this.#look(), Math.max(50, waitMs));
    this.#timer.unref();
  }

  #look(): void {
    const now = performance.now();
    for (const { heardMs } of this.#nodes.values())
      if (heardMs + NODE_TTL_MS <= now) {
        void this.refresh();
        return;
      }
    this.#watch();
  }
}

/** Whether it can do the same as before. */
const same = (a: NodeHeartbeat, b: NodeHeartbeat): boolean =>
  a.memoryMb === b.memoryMb &&
  a.concurrency === b.concurrency &&
  a.gateways === b.gateways &&
  a.kinds.join() === b.kinds.join() &&
  Object.keys(a.images).join() === Object.keys(b.images).join();
