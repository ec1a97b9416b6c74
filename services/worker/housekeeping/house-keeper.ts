/** Partitions are made 7 days ahead and dropped by the day, so an hour is early enough for both, ms. */
const EVERY_MS = 3_600_000;

export interface HouseKeeperOptions {
  /** False when another worker is at it. */
  keepHouse: () => Promise<boolean>;
  onProblem: (error: Error) => void;
  everyMs?: number;
}

/** Has the database put in order when the worker starts, and every hour after that. Calls do not wait for it. */
export class HouseKeeper {
  readonly #options: HouseKeeperOptions;
  #timer: NodeJS.Timeout | undefined;
  #underWay: Promise<void> | undefined;

  constructor(options: HouseKeeperOptions) {
    this.#options = options;
  }

  start(): void {
    this.#keep();
    this.#timer = setInterval(() => this.#keep(), this.#options.everyMs ?? EVERY_MS);
    this.#timer.unref();
  }

  /** Resolves when nothing of it is under way any more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#underWay;
  }

  #keep(): void {
    // A database that is away for long is not asked again by those that wait for it.
    if (this.#underWay) return;
    this.#underWay = this.#options
      .keepHouse()
      .then(
        () => {},
        (error: Error) => this.#options.onProblem(error),
      )
      .finally(() => {
        this.#underWay = undefined;
      });
  }
}
