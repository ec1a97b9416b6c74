/** Sandboxes that were told to end and have not ended yet. */
export class Endings {
  readonly #under = new Set<Promise<void>>();

  add(end: Promise<void>): void {
    const ending = end.finally(() => this.#under.delete(ending));
    this.#under.add(ending);
  }

  /** Resolves when all have ended, also those that are added meanwhile, or after `boundMs`. */
  async settled(boundMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const bound = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, boundMs);
    });
    const gone = (async () => {
      while (this.#under.size > 0) await Promise.all(this.#under);
    })();
    await Promise.race([gone, bound]);
    clearTimeout(timer);
  }
}
