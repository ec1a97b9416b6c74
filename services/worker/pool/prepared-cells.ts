import { type Path, type Runtime, runtimeSchema, type StartKind } from "#contracts/function";
import type { BootedSandbox } from "../sandbox/index.ts";
import type { Reservation } from "./memory-budget.ts";

/** Cells of equal shape stand for each other. */
export interface CellShape {
  readonly kind: Path;
  readonly image: Runtime;
  readonly memoryMb: number;
}

/** A cell that is being made or waits for its function. Its memory is reserved from the start. */
export interface Cell {
  readonly key: string;
  readonly reservation: Reservation;
  /** Rejects when it could not be made. */
  readonly booting: Promise<BootedSandbox>;
  /** Set once the runner has booted. */
  booted?: BootedSandbox;
}

export interface PreparedTarget {
  image: Runtime;
  memoryMb: number;
  count: number;
}

/** Starts of one shape within this long ask for cells of that shape, ms. */
const DEMAND_MS = 60_000;
/** Cells kept of a shape that was asked for lately, when no more are configured. */
export const DEMAND_CELLS = 2;
/** Shapes whose demand is remembered. */
const MAX_SHAPES = 64;

interface Shape extends CellShape {
  base: number;
  demandedAtMs: number;
  /** Booted first. */
  cells: Cell[];
  failures: number;
  retryAtMs: number;
}

const keyOf = ({ kind, image, memoryMb }: CellShape): string => `${kind}/${image}/${memoryMb}`;

/** Which cells exist and which are wanted. Making and ending them is the pool's business. */
export class PreparedCells {
  readonly #shapes = new Map<string, Shape>();
  readonly #demandCells: number;

  constructor(targets: readonly PreparedTarget[], demandCells = DEMAND_CELLS) {
    this.#demandCells = demandCells;
    for (const { image, memoryMb, count } of targets)
      this.#shape({ kind: "container", image, memoryMb }).base = count;
  }

  get size(): number {
    let size = 0;
    for (const shape of this.#shapes.values()) size += shape.cells.length;
    return size;
  }

  /** Booted ones only: what a start can take at once. */
  get ready(): number {
    let ready = 0;
    for (const shape of this.#shapes.values())
      for (const cell of shape.cells) if (cell.booted) ready++;
    return ready;
  }

  /** Those that wait for a function. */
  *booted(): Iterable<[CellShape, BootedSandbox]> {
    for (const shape of this.#shapes.values())
      for (const { booted } of shape.cells) if (booted) yield [shape, booted];
  }

  /** Whether `take` would give a cell. */
  has(shape: CellShape): boolean {
    return (this.#shapes.get(keyOf(shape))?.cells.length ?? 0) > 0;
  }

  /** How whoever takes a cell of this shape starts; undefined when none has booted. */
  startOf(shape: CellShape): StartKind | undefined {
    const cell = this.#shapes.get(keyOf(shape))?.cells.find(({ booted }) => booted);
    if (!cell) return undefined;
    return cell.booted?.restored ? "restored" : "prepared";
  }

  /** Notes that a start of this shape happens, and gives it a cell if there is one: a booted one, else one on its way. */
  take(wanted: CellShape): Cell | undefined {
    const shape = this.#shape(wanted);
    shape.demandedAtMs = performance.now();
    const booted = shape.cells.findIndex((cell) => cell.booted);
    return shape.cells.splice(Math.max(booted, 0), 1)[0];
  }

  /** The shape that lacks a cell most, or undefined; `waitMs` tells when to look again because of an earlier failure. */
  wanted(): CellShape | { waitMs: number } | undefined {
    const now = performance.now();
    let best: Shape | undefined;
    let bestLack = 0;
    let waitMs = Number.POSITIVE_INFINITY;
    for (const shape of this.#shapes.values()) {
      const lack = this.#target(shape, now) - shape.cells.length;
      if (lack <= 0) continue;
      if (shape.retryAtMs > now) waitMs = Math.min(waitMs, shape.retryAtMs - now);
      else if (lack > bestLack) {
        best = shape;
        bestLack = lack;
      }
    }
    if (best) return best;
    return Number.isFinite(waitMs) ? { waitMs } : undefined;
  }

  add(wanted: CellShape, reservation: Reservation, booting: Promise<BootedSandbox>): Cell {
    const shape = this.#shape(wanted);
    const cell: Cell = { key: keyOf(wanted), reservation, booting };
    shape.cells.push(cell);
    return cell;
  }

  /** The outcome of making a cell: failures of a shape slow down its next attempts, 0.5 s to 30 s. */
  outcome(cell: Cell, ok: boolean): void {
    const shape = this.#shapes.get(cell.key);
    if (!shape) return;
    if (ok) {
      shape.failures = 0;
      return;
    }
    shape.retryAtMs =
      performance.now() + Math.min(30_000, 500 * 2 ** Math.min(shape.failures++, 6));
  }

  /** Forgets a cell that ended or was handed out; false when it was not here. */
  remove(cell: Cell): boolean {
    const cells = this.#shapes.get(cell.key)?.cells;
    const at = cells?.indexOf(cell) ?? -1;
    if (at < 0) return false;
    cells?.splice(at, 1);
    return true;
  }

  /** A cell to end for its memory; the shape with the most is touched first. */
  evict(): Cell | undefined {
    let most: Shape | undefined;
    for (const shape of this.#shapes.values()) {
      if (shape.cells.length > (most?.cells.length ?? 0)) most = shape;
    }
    return most?.cells.pop();
  }

  /** Booted cells beyond what is wanted any more. */
  surplus(): Cell[] {
    const now = performance.now();
    const surplus: Cell[] = [];
    for (const shape of this.#shapes.values()) {
      while (shape.cells.length > this.#target(shape, now)) {
        const cell = shape.cells.pop();
        if (cell) surplus.push(cell);
      }
      if (shape.base === 0 && shape.cells.length === 0 && now - shape.demandedAtMs > DEMAND_MS)
        this.#shapes.delete(keyOf(shape));
    }
    return surplus;
  }

  /** Takes all out, for a shutdown or a sandboxd that is gone. */
  clear(): Cell[] {
    const all: Cell[] = [];
    for (const shape of this.#shapes.values()) all.push(...shape.cells.splice(0));
    return all;
  }

  #target(shape: Shape, now: number): number {
    const demanded = now - shape.demandedAtMs < DEMAND_MS ? this.#demandCells : 0;
    return Math.max(shape.base, demanded);
  }

  #shape({ kind, image, memoryMb }: CellShape): Shape {
    const key = keyOf({ kind, image, memoryMb });
    let shape = this.#shapes.get(key);
    if (!shape) {
      if (this.#shapes.size >= MAX_SHAPES) this.#forgetOne();
      shape = {
        kind,
        image,
        memoryMb,
        base: 0,
        demandedAtMs: Number.NEGATIVE_INFINITY,
        cells: [],
        failures: 0,
        retryAtMs: 0,
      };
      this.#shapes.set(key, shape);
    }
    return shape;
  }

  #forgetOne(): void {
    for (const [key, shape] of this.#shapes) {
      if (shape.base > 0 || shape.cells.length > 0) continue;
      this.#shapes.delete(key);
      return;
    }
  }
}

/** Parses CLOISTER_PREPARED: `image=count` or `image/memoryMb=count`, comma-separated. Throws one sentence. */
export function parsePrepared(text: string, defaultMemoryMb: number): PreparedTarget[] {
  const targets: PreparedTarget[] = [];
  for (const part of text.split(",")) {
    const trimmed = part.trim();
    if (trimmed === "") continue;
    const match = /^([a-z][a-z0-9]*)(?:\/(\d{2,4}))?=(\d{1,3})$/.exec(trimmed);
    const image = runtimeSchema.safeParse(match?.[1]);
    if (!match || !image.success)
      throw new Error(`CLOISTER_PREPARED: "${trimmed}" is not image=count, e.g. node24=2`);
    targets.push({
      image: image.data,
      memoryMb: match[2] ? Number(match[2]) : defaultMemoryMb,
      count: Number(match[3]),
    });
  }
  return targets;
}
