/** Acquisitions of this long count, those of long ago less: the time in which one falls to 1/e, ms. */
const MEMORY_MS = 10_000;
/** A function that nobody has wanted pristine for this long keeps none, ms. */
const FORGOTTEN_MS = 60_000;
/** After a clone that did not come back, or did not stay, none is made for this long, ms. */
const RETRY_MS = 5000;
/** What one takes until it waits, before the first has been made, ms. */
const EXPECTED_MS = 15;
/** Less than this of a missed acquisition is none. */
const TRIFLE = 0.01;

/**
 * How many clones of one version should wait, from recent acquisitions that wanted a pristine sandbox. As many as are likely to be asked for while one is
 * made: of a rate and a time these are `mean`, give or take its root, if calls come independently. Bursts are not that: each acquisition that lately
 * found none waiting asks for one too.
 */
export class CloneDemand {
  #acquired = 0;
  #missed = 0;
  #atMs = Number.NEGATIVE_INFINITY;
  #lastMs = Number.NEGATIVE_INFINITY;
  #retryAtMs = 0;
  #makeMs = EXPECTED_MS;

  /** One that waited was taken. */
  took(nowMs: number): void {
    this.#decay(nowMs);
    this.#acquired++;
    this.#lastMs = nowMs;
  }

  /** None waited. */
  missed(nowMs: number): void {
    this.took(nowMs);
    this.#missed++;
  }

  /** One has come to wait, `tookMs` after it was begun. */
  made(tookMs: number): void {
    this.#makeMs += (tookMs - this.#makeMs) / 4;
  }

  failed(nowMs: number): void {
    this.#retryAtMs = nowMs + RETRY_MS;
  }

  forgotten(nowMs: number): boolean {
    return nowMs - this.#lastMs > FORGOTTEN_MS;
  }

  /** At most `most`. */
  wanted(nowMs: number, most: number): number {
    if (this.forgotten(nowMs) || nowMs < this.#retryAtMs) return 0;
    this.#decay(nowMs);
    const mean = (this.#acquired / MEMORY_MS) * this.#makeMs;
    return Math.min(
      most,
      Math.max(Math.ceil(mean + Math.sqrt(mean)), Math.ceil(this.#missed - TRIFLE)),
    );
  }

  #decay(nowMs: number): void {
    const kept = Math.exp(-Math.max(0, nowMs - this.#atMs) / MEMORY_MS);
    this.#acquired *= kept;
    this.#missed *= kept;
    this.#atMs = nowMs;
  }
}
