import { posix } from "node:path";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { type ReadEntry, Unpack } from "tar";
import { LIMITS } from "#contracts/function";
import { CloisterError } from "#errors/catalogue";

/** A tar header block and its padding: what an empty entry costs in the inflated stream. */
const TAR_BLOCK_BYTES = 512;

const bad = (detail: string): CloisterError => new CloisterError("bad_bundle", detail);

/** Longest wait for one bundle to be inflated and written, ms. */
const UNPACK_TIMEOUT_MS = 60_000;

export interface UnpackLimits {
  unpackedBytes: number;
  entries: number;
}

const DEFAULT_LIMITS: UnpackLimits = {
  unpackedBytes: LIMITS.bundleUnpackedBytes,
  entries: LIMITS.bundleEntries,
};

/**
 * Unpacks a tar.gz into the existing, empty `folder`. Only plain files, folders and links that stay inside come in; modes become
 * 0755 or 0644 (the process's umask must not take read bits away). Rejects with `bad_bundle` at the first entry that is
 * anything else; what was written until then is the caller's to remove. Resolves with the bytes of the files.
 */
export async function unpackBundle(
  bundle: Uint8Array,
  folder: string,
  limits: UnpackLimits = DEFAULT_LIMITS,
): Promise<number> {
  let entries = 0;
  let fileBytes = 0;
  const controller = new AbortController();
  let refused: CloisterError | undefined;
  const refuse = (detail: string): false => {
    refused ??= bad(detail);
    controller.abort();
    return false;
  };
  const unpack = new Unpack({
    cwd: folder,
    strict: true,
    preserveOwner: false,
    noMtime: true,
    filter(_path, entry) {
      if (refused) return false;
      const problem = entryProblem(entry as ReadEntry);
      if (problem) return refuse(problem);
      if (++entries > limits.entries)
        return refuse(`The bundle has more than ${limits.entries} entries`);
      fileBytes += (entry as ReadEntry).size;
      if (fileBytes > limits.unpackedBytes)
        return refuse(`The bundle is larger than ${limits.unpackedBytes} bytes when unpacked`);
      normaliseMode(entry as ReadEntry);
      return true;
    },
  });
  // A gzip bomb need not look like a tar at all, so the inflated stream is bounded too.
  const streamLimit = limits.unpackedBytes + (limits.entries + 2) * 4 * TAR_BLOCK_BYTES;
  let inflated = 0;
  const bounded = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      inflated += chunk.length;
      if (inflated > streamLimit) done(bad("The bundle inflates to more than a bundle may hold"));
      else done(null, chunk);
    },
  });
  const signal = AbortSignal.any([controller.signal, AbortSignal.timeout(UNPACK_TIMEOUT_MS)]);
  try {
    await pipeline(Readable.from(slices(bundle)), createGunzip(), bounded, asWritable(unpack), {
      signal,
    });
  } catch (error) {
    if (refused) throw refused;
    if (error instanceof CloisterError) throw error;
    throw bad(`The bundle is no sound tar.gz: ${error instanceof Error ? error.message : error}`);
  }
  if (refused) throw refused;
  if (entries === 0) throw bad("The bundle is empty");
  return fileBytes;
}

/** Pieces small enough that inflating them never holds the event loop for long. */
function* slices(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}

/** tar's classes are not Node streams: waits for `close`, when every file is written. */
function asWritable(unpack: Unpack): (source: AsyncIterable<Buffer>) => Promise<void> {
  return async (source) => {
    const closed = new Promise<void>((resolve, reject) => {
      unpack.on("close", () => resolve());
      unpack.on("error", reject);
    });
    closed.catch(() => {});
    for await (const chunk of source) {
      if (unpack.write(chunk)) continue;
      await Promise.race([new Promise<void>((resolve) => unpack.once("drain", resolve)), closed]);
    }
    unpack.end();
    await closed;
  };
}

function normaliseMode(entry: ReadEntry): void {
  const executable = entry.type === "Directory" || ((entry.mode ?? 0) & 0o111) !== 0;
  entry.mode = executable ? 0o755 : 0o644;
}

/** Why an entry may not come in, or undefined. */
function entryProblem(entry: ReadEntry): string | undefined {
  const shown = JSON.stringify(entry.path.slice(0, 200));
  if (!isInside(entry.path)) return `The bundle's entry ${shown} leads out of the bundle`;
  switch (entry.type) {
    case "File":
    case "OldFile":
    case "ContiguousFile":
    case "Directory":
      return undefined;
    case "SymbolicLink":
      return linkStaysInside(entry.path, entry.linkpath ?? "")
        ? undefined
        : `The bundle's link ${shown} leads out of the bundle`;
    case "Link":
      return isInside(entry.linkpath ?? "")
        ? undefined
        : `The bundle's hard link ${shown} leads out of the bundle`;
    default:
      return `The bundle's entry ${shown} is neither file, folder nor link`;
  }
}

/** Relative, without `..`, NUL or backslash tricks. */
function isInside(path: string): boolean {
  return (
    path.length > 0 &&
    path.length <= 4096 &&
    !path.startsWith("/") &&
    !path.includes("\0") &&
    !path.split("/").includes("..")
  );
}

/**
 * A link's folder is a real folder (tar refuses to write through links), so `..` at the start of its target can be counted;
 * `..` after a name could pass through another link and is refused.
 */
function linkStaysInside(path: string, target: string): boolean {
  if (
    target.length === 0 ||
    target.length > 4096 ||
    target.startsWith("/") ||
    target.includes("\0")
  )
    return false;
  const depth = posix.normalize(path).replace(/\/$/, "").split("/").length - 1;
  let ups = 0;
  let named = false;
  for (const part of target.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") named = true;
    else if (named || ++ups > depth) return false;
  }
  return true;
}
