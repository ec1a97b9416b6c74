/** Memory promised to sandboxes, MiB. A promise begins before a sandbox is made and ends when its last process is gone. */
export class MemoryBudget {
  readonly totalMb: number;
  #reservedMb = 0;
  #leavingMb = 0;

  constructor(totalMb: number) {
    this.totalMb = totalMb;
  }

  get reservedMb(): number {
    return this.#reservedMb;
  }

  get freeMb(): number {
    return this.totalMb - this.#reservedMb;
  }

  /** What is free now and what will be once all that were told to end have ended. */
  get freeSoonMb(): number {
    return this.freeMb + this.#leavingMb;
  }

  reserve(memoryMb: number): Reservation | undefined {
    if (memoryMb > this.freeMb) return undefined;
    this.#reservedMb += memoryMb;
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
      },
    };
  }
}

export interface Reservation {
  readonly memoryMb: number;
  /** Its sandbox was told to end. */
  leaving(): void;
  /** Its sandbox is gone. Only the first call counts. */
  release(): void;
}
