import { createHash, randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CloisterError } from "#errors/catalogue";
import { Unpacker } from "./unpacker.ts";

export interface BundleCacheOptions {
  /** One folder per digest; this process is its only writer. */
  folder: string;
  /** Gives the stored tar.gz; undefined when there is none of that digest. */
  read: (digest: string) => Promise<Uint8Array | undefined>;
  /** What all unpacked bundles may take on disk. One that is in use stays, whatever the bound. */
  maxBytes?: number;
}

/** A bundle that stays on disk until `release`. */
export interface BundleHold {
  digest: string;
  path: string;
  release(): void;
}

interface Entry {
  bytes: number;
  holds: number;
}

/** Longest wait for the database to give a bundle, ms. */
const READ_TIMEOUT_MS = 20_000;
const DIGEST = /^[0-9a-f]{64}$/;
const DEFAULT_MAX_BYTES = 10 * 1024 ** 3;
/** Charged for every bundle beside its bytes, so that a million empty ones cannot hide from the bound. */
const ENTRY_BYTES = 16_384;

/**
 * Unpacked bundles by digest. A folder under its digest's name is whole: it was unpacked elsewhere and renamed. That holds
 * within one boot; a machine that crashed may have lost file contents, so another boot starts with an empty cache.
 */
export class BundleCache {
  readonly #folder: string;
  readonly #read: BundleCacheOptions["read"];
  readonly #maxBytes: number;
  readonly #unpacker = new Unpacker();
  /** Least recently used first. */
  readonly #entries = new Map<string, Entry>();
  readonly #pending = new Map<string, Promise<void>>();
  #bytes = 0;

  private constructor(options: BundleCacheOptions) {
    this.#folder = options.folder;
    this.#read = options.read;
    this.#maxBytes = options.maxBytes ?? DEFAULT_MAX_BYTES;
  }

  static async open(options: BundleCacheOptions): Promise<BundleCache> {
    const cache = new BundleCache(options);
    cache.#unpacker.start();
    await cache.#recover();
    return cache;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Resolves when the bundle is on disk; it stays there at least until the hold is released. */
  async hold(digest: string): Promise<BundleHold> {
    if (!DIGEST.test(digest)) throw new CloisterError("internal", "A bundle's digest is malformed");
    let entry = this.#entries.get(digest);
    while (!entry) {
      let pending = this.#pending.get(digest);
      if (!pending) {
        pending = this.#fetch(digest).finally(() => this.#pending.delete(digest));
        this.#pending.set(digest, pending);
      }
      await pending;
      entry = this.#entries.get(digest);
    }
    const held = entry;
    held.holds++;
    this.#entries.delete(digest);
    this.#entries.set(digest, held);
    let released = false;
    return {
      digest,
      path: join(this.#folder, digest),
      release: () => {
        if (released) return;
        released = true;
        held.holds--;
        if (this.#bytes > this.#maxBytes) this.#evict();
      },
    };
  }

  async #fetch(digest: string): Promise<void> {
    const bundle = await this.#readInTime(digest);
    if (!bundle) throw new CloisterError("internal", "The version's bundle is not in the database");
    const found = createHash("sha256").update(bundle).digest("hex");
    if (found !== digest)
      throw new CloisterError("internal", "The stored bundle does not match its digest");
    const temporary = await mkdtemp(join(this.#folder, `.tmp-${digest.slice(0, 8)}-`));
    try {
      // mkdtemp makes it 0700, but the sandbox's own user must get in.
      const target = join(temporary, "bundle");
      await mkdir(target, { mode: 0o755 });
      const bytes = (await this.#unpacker.unpack(bundle, target).catch(asInitError)) + ENTRY_BYTES;
      await writeFile(join(this.#folder, `.size-${digest}`), String(bytes));
      await rename(target, join(this.#folder, digest)).catch(
        async (error: NodeJS.ErrnoException) => {
          // A folder that this cache does not know is left from an interrupted eviction.
          if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error;
          await rm(join(this.#folder, digest), { recursive: true, force: true });
          await rename(target, join(this.#folder, digest));
        },
      );
      this.#entries.set(digest, { bytes, holds: 0 });
      this.#bytes += bytes;
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
    if (this.#bytes > this.#maxBytes) this.#evict(digest);
  }

  async #readInTime(digest: string): Promise<Uint8Array | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error("no answer in time")), READ_TIMEOUT_MS);
    });
    try {
      return await Promise.race([this.#read(digest), late]);
    } catch (error) {
      throw new CloisterError(
        "dependency_unavailable",
        "The function's bundle could not be read from the database",
        { cause: error instanceof Error ? error.message : String(error) },
      );
    } finally {
      clearTimeout(timer);
    }
  }

  /** Takes the least recently used bundles that nobody holds out; their files go in the background. */
  #evict(keep?: string): void {
    for (const [digest, entry] of this.#entries) {
      if (this.#bytes <= this.#maxBytes) return;
      if (entry.holds > 0 || digest === keep) continue;
      this.#entries.delete(digest);
      this.#bytes -= entry.bytes;
      const doomed = join(this.#folder, `.tmp-evicted-${randomBytes(6).toString("hex")}`);
      // A fetch of the same digest must not begin before the folder is out of the way.
      const gone = rename(join(this.#folder, digest), doomed).then(
        () => void rm(doomed, { recursive: true, force: true }).catch(() => {}),
        () => {},
      );
      this.#pending.set(
        digest,
        gone.finally(() => this.#pending.delete(digest)),
      );
    }
  }

  async #recover(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o755 });
    const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
    const bootFile = join(this.#folder, ".boot");
    const sameBoot = (await readFile(bootFile, "utf8").catch(() => "")) === boot;
    const found: { digest: string; bytes: number; usedAtMs: number }[] = [];
    for (const name of await readdir(this.#folder)) {
      const path = join(this.#folder, name);
      if (sameBoot && DIGEST.test(name)) {
        const bytes = Number(
          await readFile(join(this.#folder, `.size-${name}`), "utf8").catch(() => "NaN"),
        );
        if (Number.isSafeInteger(bytes) && bytes >= 0) {
          found.push({ digest: name, bytes, usedAtMs: (await stat(path)).mtimeMs });
          continue;
        }
      }
      if (name.startsWith(".size-") && sameBoot) continue;
      await rm(path, { recursive: true, force: true });
    }
    await writeFile(bootFile, boot);
    found.sort((a, b) => a.usedAtMs - b.usedAtMs);
    for (const { digest, bytes } of found) {
      this.#entries.set(digest, { bytes, holds: 0 });
      this.#bytes += bytes;
    }
    if (this.#bytes > this.#maxBytes) this.#evict();
  }
}

/** Who invokes a function did not send its bundle: what is wrong with it is an init error of the function. */
function asInitError(error: unknown): never {
  if (error instanceof CloisterError && error.code === "bad_bundle")
    throw new CloisterError("function_init_error", error.message);
  throw error;
}
