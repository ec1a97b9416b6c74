import { closeSync, openSync, readSync } from "node:fs";

/** A kernel file that sandboxd's create reply names. */
export interface StatFile {
  path: string;
  format: "ns" | "bytes" | "usage_usec";
}

export interface StatFiles {
  cpu?: StatFile;
  memoryPeak?: StatFile;
}

const buffer = Buffer.allocUnsafe(1024);

/**
 * CPU time and peak memory of one sandbox, read from its cgroup through descriptors that stay open: two reads of some
 * microseconds, no round trip. A figure the kernel does not give is undefined, never zero.
 */
export class SandboxMeter {
  readonly #cpu: OpenStat | undefined;
  readonly #memoryPeak: OpenStat | undefined;

  constructor(files: StatFiles) {
    this.#cpu = OpenStat.open(files.cpu);
    this.#memoryPeak = OpenStat.open(files.memoryPeak);
  }

  /** CPU time since the sandbox began, ms. */
  cpuMs(): number | undefined {
    return this.#cpu?.read();
  }

  /** Most memory the sandbox has had so far, bytes. */
  memoryPeakBytes(): number | undefined {
    return this.#memoryPeak?.read();
  }

  close(): void {
    this.#cpu?.close();
    this.#memoryPeak?.close();
  }
}

class OpenStat {
  readonly #format: StatFile["format"];
  #fd: number | undefined;

  private constructor(fd: number, format: StatFile["format"]) {
    this.#fd = fd;
    this.#format = format;
  }

  static open(file: StatFile | undefined): OpenStat | undefined {
    if (!file) return undefined;
    try {
      return new OpenStat(openSync(file.path, "r"), file.format);
    } catch {
      return undefined;
    }
  }

  read(): number | undefined {
    if (this.#fd === undefined) return undefined;
    let text: string;
    try {
      text = buffer.toString("latin1", 0, readSync(this.#fd, buffer, 0, buffer.length, 0));
    } catch {
      // The cgroup is gone with its sandbox.
      return undefined;
    }
    if (this.#format === "usage_usec") {
      const match = /^usage_usec (\d+)$/m.exec(text);
      return match ? Number(match[1]) / 1000 : undefined;
    }
    const value = Number.parseInt(text, 10);
    if (!Number.isFinite(value)) return undefined;
    return this.#format === "ns" ? value / 1e6 : value;
  }

  close(): void {
    if (this.#fd === undefined) return;
    closeSync(this.#fd);
    this.#fd = undefined;
  }
}
