import { closeSync, existsSync, openSync, renameSync, statSync, writeSync } from "node:fs";

/** A file is put aside at this size, and at each start. */
const MAX_BYTES = 10 * 1024 * 1024;
/** Files kept beside the current one: name.log.1 is the youngest. */
const KEPT = 3;

/** The log of one service. Lines are written at once, so that what a crash is about is in the file. */
export class LogFile {
  readonly #path: string;
  #fd: number;
  #bytes = 0;

  constructor(path: string) {
    this.#path = path;
    if (existsSync(path) && statSync(path).size > 0) this.#putAside();
    this.#fd = openSync(path, "a", 0o640);
  }

  write(line: string): void {
    this.#bytes += Buffer.byteLength(line) + 1;
    writeSync(this.#fd, `${line}\n`);
    if (this.#bytes < MAX_BYTES) return;
    closeSync(this.#fd);
    this.#putAside();
    this.#fd = openSync(this.#path, "a", 0o640);
    this.#bytes = 0;
  }

  #putAside(): void {
    for (let n = KEPT; n > 1; n--) {
      const older = `${this.#path}.${n - 1}`;
      if (existsSync(older)) renameSync(older, `${this.#path}.${n}`);
    }
    renameSync(this.#path, `${this.#path}.1`);
  }
}
