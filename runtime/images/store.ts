import { randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  watch,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import { ImageBuildError, type Progress } from "./progress.ts";
import { measureTree, normaliseTree } from "./tree.ts";

/** What stands in <name>.json; sandboxd reads it (runtime/sandboxd/README.md, Images). */
export interface Manifest {
  schema: 1;
  name: string;
  /** sha256 over layers and runner. */
  digest: string;
  /** Lowest first. */
  layers: string[];
  runner: { argv: string[]; env: Record<string, string> };
  sizeBytes: number;
}

export interface Layer {
  digest: string;
  sizeBytes: number;
}

interface Stamp extends Layer {
  /** Digest of everything the layer was made from. */
  key: string;
}

const LOCK_WAIT_MS = 600_000;

/** Writes a file so that a reader, or a crash, sees the old content or the new, never a part. */
export function writeAtomically(path: string, text: string): void {
  const temporary = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  const fd = openSync(temporary, "wx", 0o644);
  try {
    writeSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, path);
}

/**
 * The image directory: layers/<sha256>/, <name>.json, and what only the builder reads (stamps.json, previous/, tmp/, cache/).
 * A layer folder appears by rename when it is whole, so whatever stands in layers/ is complete.
 */
export class ImageStore {
  readonly directory: string;
  readonly #progress: Progress;
  #stamps: Record<string, Stamp>;

  constructor(directory: string, progress: Progress) {
    this.directory = directory;
    this.#progress = progress;
    for (const folder of ["layers", "previous", "tmp", "cache"]) {
      mkdirSync(join(directory, folder), { recursive: true, mode: 0o755 });
    }
    this.#stamps = readJson<Record<string, Stamp>>(join(directory, "stamps.json")) ?? {};
  }

  /** The folder of a layer. */
  layerPath(digest: string): string {
    return join(this.directory, "layers", digest);
  }

  /**
   * The layer `name` made from inputs with digest `key`: the one there is, or a new one that `build` fills a folder with.
   * Two builds of the same inputs give the same digest.
   */
  async layer(
    name: string,
    key: string,
    force: boolean,
    build: (root: string) => Promise<void> | void,
  ): Promise<Layer> {
    const stamp = this.#stamps[name];
    if (!force && stamp?.key === key && existsSync(this.layerPath(stamp.digest))) return stamp;
    const startedMs = performance.now();
    const root = this.scratch(name);
    await build(root);
    normaliseTree(root);
    const facts = measureTree(root);
    const final = this.layerPath(facts.digest);
    if (existsSync(final)) rmSync(root, { recursive: true });
    else renameSync(root, final);
    this.#stamps[name] = { key, ...facts };
    writeAtomically(join(this.directory, "stamps.json"), JSON.stringify(this.#stamps, null, 1));
    const tookMs = Math.round(performance.now() - startedMs);
    this.#progress(`layer ${name}: ${mebibytes(facts.sizeBytes)} in ${tookMs} ms`);
    return facts;
  }

  /** A new empty folder for work in progress; everything in tmp/ goes when the next build starts. */
  scratch(name: string): string {
    const folder = join(this.directory, "tmp", `${name}-${randomBytes(6).toString("hex")}`);
    mkdirSync(folder, { recursive: true, mode: 0o755 });
    return folder;
  }

  /** The manifest of an image, undefined if it has none or a layer of it is gone. */
  manifest(name: string): Manifest | undefined {
    const value = readJson<Manifest>(join(this.directory, `${name}.json`));
    if (value?.schema !== 1 || !Array.isArray(value.layers)) return undefined;
    return value.layers.every((digest) => existsSync(this.layerPath(digest))) ? value : undefined;
  }

  /** Publishes a manifest; the one it replaces is kept as the previous generation. Says whether anything changed. */
  publish(manifest: Manifest): boolean {
    const path = join(this.directory, `${manifest.name}.json`);
    const former = existsSync(path) ? readFileSync(path, "utf8") : undefined;
    const text = `${JSON.stringify(manifest, null, 1)}\n`;
    if (former === text) return false;
    if (former) writeAtomically(join(this.directory, "previous", `${manifest.name}.json`), former);
    writeAtomically(path, text);
    return true;
  }

  /**
   * Removes layers that no manifest names, neither the present nor the previous generation (a running sandboxd may
   * still hold the one it read at start), and that no process on the machine has mounted.
   */
  collectGarbage(): void {
    const named = new Set<string>();
    for (const folder of [this.directory, join(this.directory, "previous")]) {
      for (const file of readdirSync(folder).filter((entry) => entry.endsWith(".json"))) {
        const layers = readJson<Partial<Manifest>>(join(folder, file))?.layers;
        for (const digest of layers ?? []) named.add(digest);
      }
    }
    const loose = readdirSync(join(this.directory, "layers")).filter((name) => !named.has(name));
    if (loose.length === 0) return;
    const mounts = allMounts();
    for (const digest of loose.filter((name) => !mounts.includes(name))) {
      // Out of layers/ in one step: a removal that is killed must not leave half a layer under a whole one's name.
      const doomed = join(this.scratch("removed"), digest);
      renameSync(this.layerPath(digest), doomed);
      rmSync(doomed, { recursive: true, force: true });
      this.#progress(`layer ${digest.slice(0, 12)} removed: no image uses it`);
    }
  }

  /** Recomputes the digest of every layer of an image. Throws if one is not what its name says. */
  verify(manifest: Manifest): void {
    for (const digest of manifest.layers) {
      if (measureTree(this.layerPath(digest)).digest !== digest) {
        throw new ImageBuildError(
          `Layer ${digest} of image ${manifest.name} was changed after it was built.`,
          "Rebuild it: node runtime/images/build.ts --dir DIR --force",
        );
      }
    }
  }

  /** Keeps other builders out while `work` runs, and clears what a killed one left in tmp/. Waits up to 10 minutes. */
  async exclusively<T>(work: () => Promise<T>): Promise<T> {
    const lock = join(this.directory, "build.lock");
    await this.#acquire(lock);
    try {
      rmSync(join(this.directory, "tmp"), { recursive: true, force: true });
      mkdirSync(join(this.directory, "tmp"));
      for (const file of readdirSync(this.directory).filter((entry) => entry.endsWith(".tmp"))) {
        rmSync(join(this.directory, file));
      }
      this.#stamps = readJson<Record<string, Stamp>>(join(this.directory, "stamps.json")) ?? {};
      return await work();
    } finally {
      rmSync(lock, { force: true });
    }
  }

  async #acquire(lock: string): Promise<void> {
    const deadlineMs = performance.now() + LOCK_WAIT_MS;
    const me = `${process.pid} ${startOf(process.pid)}`;
    let told = false;
    while (true) {
      try {
        const fd = openSync(lock, "wx", 0o644);
        writeSync(fd, me);
        closeSync(fd);
        return;
      } catch (error) {
        if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
      }
      const holder = readLock(lock);
      const [pid = "", started = ""] = (holder ?? "").split(" ");
      if (holder && startOf(Number(pid)) !== started) {
        // Its process is gone; a killed build leaves its lock.
        try {
          unlinkSync(lock);
        } catch {}
        continue;
      }
      if (performance.now() > deadlineMs) {
        throw new ImageBuildError(
          `Process ${pid} has been building images for more than 10 minutes.`,
          `End it, or remove ${lock}, then try again.`,
        );
      }
      if (!told) this.#progress(`waiting for the image build of process ${pid}`);
      told = true;
      await removalOrSecond(this.directory);
    }
  }
}

/** Resolves when the directory changes, after a second at the latest: a killed holder changes nothing. */
async function removalOrSecond(directory: string): Promise<void> {
  const stop = new AbortController();
  const watcher = watch(directory, { persistent: false });
  try {
    await Promise.race([
      new Promise<void>((resolve) => watcher.once("change", () => resolve())),
      after(1000, undefined, { signal: stop.signal }),
    ]);
  } finally {
    stop.abort();
    watcher.close();
  }
}

function readLock(lock: string): string | undefined {
  try {
    return readFileSync(lock, "utf8");
  } catch {
    return undefined;
  }
}

/** Start time of a process in clock ticks, proc(5) stat field 22: pids are used again, the pair is not. */
function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

/** Mount tables of every mount namespace some process lives in, in one string. */
function allMounts(): string {
  const seen = new Map<string, string>();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    const table = readLock(`/proc/${pid}/mountinfo`);
    if (table) seen.set(table, table);
  }
  return [...seen.values()].join("\n");
}

function readJson<T>(path: string): T | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as T;
  } catch {
    return undefined;
  }
}

/** As in `12.3 MiB`. */
export function mebibytes(bytes: number): string {
  return `${(bytes / (1 << 20)).toFixed(1)} MiB`;
}
