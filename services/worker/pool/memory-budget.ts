import { CloisterError } from "#errors/catalogue";

/** Things of equal size that are kept as long as there is memory for them, and tell how many that is. */
export interface Yielding {
  each: { memoryMb: number; most: number };
  /** Hears how many may be kept from now on. */
  keep(count: number): void;
}

/**
 * Memory promised to sandboxes, MiB. A promise begins before a sandbox is made and ends when its last process is gone. What nobody asked for may be used by
 * things that yield.
 */
export class MemoryBudget {
  readonly totalMb: number;
  #reservedMb = 0;
  #leavingMb = 0;
  #yielding: Yielding | undefined;
  /** Of what yields. */
  #kept = 0;

  constructor(totalMb: number) {
    this.totalMb = totalMb;
  }

  get reservedMb(): number {
    return this.#reservedMb;
  }

  /** What things that yield use of the rest. */
  get yieldingMb(): number {
    return this.#kept * (this.#yielding?.each.memoryMb ?? 0);
  }

  /** Begins to count things that yield, in the place of those before. */
  yields(yielding: Yielding): void {
    this.#yielding = yielding;
    this.#kept = yielding.each.most;
    this.#shrink();
  }

  get freeMb(): number {
    return this.totalMb - this.#reservedMb;
  }

  /** What is free now and what will be once all that were told to end have ended. */
  get freeSoonMb(): number {
    return this.freeMb + this.#leavingMb;
  }

  /** Why a sandbox of this size can never be had; undefined if it can. */
  refusalOf(memoryMb: number): CloisterError | undefined {
    if (memoryMb <= this.totalMb) return undefined;
    return new CloisterError(
      "capacity_exhausted",
      `The function needs ${memoryMb} MiB and this node has ${this.totalMb} MiB for all sandboxes`,
    );
  }

  reserve(memoryMb: number): Reservation | undefined {
    if (memoryMb > this.freeMb) return undefined;
    this.#reservedMb += memoryMb;
    this.#shrink();
    let state: "held" | "leaving" | "released" = "held";
    return {
      memoryMb,
      leaving: () => {
        if (state !== "held") return;
        state = "leaving";
        this.#leavingMb += memoryMb;
      },
      release: () => {
        if (state === "released") return;
        if (state === "leaving") this.#leavingMb -= memoryMb;
        state = "released";
        this.#reservedMb -= memoryMb;
        this.#grow();
      },
    };
  }

  #shrink(): void {
    const { each } = this.#yielding ?? {};
    if (!each) return;
    const room = Math.floor(this.freeMb / each.memoryMb);
    if (room < this.#kept) this.#keep(room);
  }

  /** Not before there is room for twice as many, so that they do not come and go with each sandbox. */
  #grow(): void {
    const { each } = this.#yielding ?? {};
    if (!each || this.#kept >= each.most) return;
    const room = Math.floor(this.freeMb / each.memoryMb / 2);
    if (room > this.#kept) this.#keep(Math.min(each.most, room));
  }

  #keep(count: number): void {
    this.#kept = count;
    this.#yielding?.keep(count);
  }
}

export interface Reservation {
  readonly memoryMb: number;
  /** Its sandbox was told to end. */
  leaving(): void;
  /** Its sandbox is gone. Only the first call counts. */
  release(): void;
}
