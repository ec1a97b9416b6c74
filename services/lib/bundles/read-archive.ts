import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { type Parser, type ReadEntry, Parser as TarParser } from "tar";
import { CloisterError } from "#errors/catalogue";
import { BUNDLE_LIMITS, type BundleLimits, BundleRules, bad } from "./entry-rules.ts";

/** A tar header block and its padding: what an empty entry costs in the inflated stream. */
const TAR_BLOCK_BYTES = 512;
/** Archives are padded to a whole record (tar: 10 KiB); more than this after the end mark is there to keep us busy. */
const MAX_PADDING_BYTES = 1024 * 1024;
/** Longest wait for one bundle to be inflated and read, ms. */
const READ_TIMEOUT_MS = 60_000;

export interface ArchiveReading {
  parser: Parser;
  /** Resolves when everything the parser began is done; rejects when it failed. */
  done: Promise<void>;
  rules: BundleRules;
  limits: BundleLimits;
  /** Ends the reading early; its reason is what `readArchive` then rejects with. */
  signal: AbortSignal;
}

/**
 * Inflates a tar.gz into `parser`, which asks `rules` about each entry. Rejects with `bad_bundle` for what is no sound archive, inflates to
 * more than a bundle may hold or is empty, and with the signal's reason when that is a CloisterError.
 */
export async function readArchive(
  bundle: Uint8Array,
  { parser, done, rules, limits, signal }: ArchiveReading,
): Promise<void> {
  // A gzip bomb need not look like a tar at all, so the inflated stream is bounded too.
  const streamLimit = limits.unpackedBytes + (limits.entries + 2) * 4 * TAR_BLOCK_BYTES;
  let inflated = 0;
  const bounded = new Transform({
    transform(chunk: Buffer, _encoding, pass) {
      inflated += chunk.length;
      if (inflated > streamLimit) pass(bad("The bundle inflates to more than a bundle may hold"));
      else pass(null, chunk);
    },
  });
  done.catch(() => {});
  let ended = false;
  let paddingBytes = 0;
  parser.once("eof", () => {
    ended = true;
  });
  const into = async (source: AsyncIterable<Buffer>): Promise<void> => {
    for await (const chunk of source) {
      if (ended) {
        paddingBytes += chunk.length;
        if (paddingBytes > MAX_PADDING_BYTES) throw bad("The bundle goes on after its end");
        continue;
      }
      if (parser.write(chunk)) continue;
      await Promise.race([new Promise<void>((resolve) => parser.once("drain", resolve)), done]);
    }
    parser.end();
    await done;
  };
  try {
    await pipeline(Readable.from(slices(bundle)), createGunzip(), bounded, into, {
      signal: AbortSignal.any([signal, AbortSignal.timeout(READ_TIMEOUT_MS)]),
    });
  } catch (error) {
    if (signal.reason instanceof CloisterError) throw signal.reason;
    if (error instanceof CloisterError) throw error;
    throw bad(`The bundle is no sound tar.gz: ${error instanceof Error ? error.message : error}`);
  }
  if (signal.reason instanceof CloisterError) throw signal.reason;
  if (rules.entries === 0) throw bad("The bundle is empty");
}

/**
 * Reads a tar.gz without keeping anything of it. Resolves with the bytes of its files; rejects with `bad_bundle`. `each` gets every entry that
 * may be there, and has to read it or let it flow.
 */
export async function inspectBundle(
  bundle: Uint8Array,
  limits: BundleLimits = BUNDLE_LIMITS,
  each: (entry: ReadEntry) => void = (entry) => entry.resume(),
): Promise<number> {
  const rules = new BundleRules(limits);
  const controller = new AbortController();
  const parser = new TarParser({
    strict: true,
    onReadEntry(entry) {
      if (!controller.signal.aborted) {
        try {
          rules.admit(entry);
          each(entry);
          return;
        } catch (error) {
          controller.abort(error);
        }
      }
      entry.resume();
    },
  });
  const done = new Promise<void>((resolve, reject) => {
    parser.on("end", () => resolve());
    parser.on("error", reject);
    // Strict warnings come as errors; what stops the parser otherwise comes as an abort.
    parser.on("abort", reject);
  });
  await readArchive(bundle, { parser, done, rules, limits, signal: controller.signal });
  return rules.fileBytes;
}

/** Pieces small enough that inflating them never holds the event loop for long. */
function* slices(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}
