import { type SandboxLauncher, shapeFor } from "../sandbox/index.ts";
import type { MemoryBudget } from "./memory-budget.ts";
import type { Cell, PreparedCells } from "./prepared-cells.ts";

export interface CellMakerOptions {
  launcher: SandboxLauncher;
  cells: PreparedCells;
  budget: MemoryBudget;
  /** Whether nobody is waiting whom making a cell would slow down. */
  mayMake: () => boolean;
  /** Counts boots under way. */
  booting: (change: 1 | -1) => void;
  /** Memory or a cell has become available. */
  changed: () => void;
  /** A cell is being ended. */
  end: (ending: Promise<void>) => void;
  onProblem?: (error: Error) => void;
}

/** Cells are made this long after the last start, so that they do not slow down the answer that is being made, ms. */
const DELAY_MS = 10;

/** Keeps as many prepared cells as are wanted: one is made at a time, only while nobody waits, never by ending anything. */
export class CellMaker {
  readonly #options: CellMakerOptions;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: CellMakerOptions) {
    this.#options = options;
  }

  soon(delayMs = DELAY_MS): void {
    if (this.#stopped || this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#make();
    }, delayMs);
    this.#timer.unref();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #make(): void {
    const { cells, budget, launcher, mayMake } = this.#options;
    if (this.#stopped || !mayMake()) return;
    for (const cell of cells.surplus()) this.#options.end(endCell(cell));
    const wanted = cells.wanted();
    if (!wanted) return;
    if ("waitMs" in wanted) {
      this.soon(wanted.waitMs + 1);
      return;
    }
    const reservation = budget.reserve(wanted.memoryMb);
    // Whoever gives memory back calls `soon` again.
    if (!reservation) return;
    this.#options.booting(1);
    const { kind, image, memoryMb } = wanted;
    const shape = shapeFor({ runtime: image, memoryMb }, kind);
    const booting = launcher.prepare(shape, `prepared-${image}`);
    const cell = cells.add(wanted, reservation, booting);
    booting.then(
      (booted) => {
        this.#options.booting(-1);
        cell.booted = booted;
        cells.outcome(cell, true);
        void booted.down.then(() => this.#died(cell));
        void booted.ended.then(() => {
          reservation.release();
          this.#options.changed();
        });
        this.#options.changed();
      },
      (error: Error) => {
        this.#options.booting(-1);
        reservation.release();
        cells.remove(cell);
        cells.outcome(cell, false);
        this.#options.onProblem?.(error);
        this.#options.changed();
      },
    );
  }

  /** A cell nobody had taken ended by itself. */
  #died(cell: Cell): void {
    const { cells } = this.#options;
    if (!cells.remove(cell)) return;
    cell.reservation.leaving();
    cells.outcome(cell, false);
    this.#options.end(endCell(cell));
    this.soon();
  }
}

/** Resolves when the cell is gone, also one that is still being made. */
export async function endCell(cell: Cell): Promise<void> {
  try {
    await (await cell.booting).end();
  } catch {
    // It never came to be.
  }
}
