import { type ReadEntry, UnpackSync } from "tar";
import { BUNDLE_LIMITS, type BundleLimits, BundleRules } from "#bundles/entry-rules";
import { readArchive } from "#bundles/read-archive";

/**
 * Unpacks a tar.gz into the existing, empty `folder`. Only what the bundle rules admit comes in; modes become
 * 0755 or 0644 (the process's umask must not take read bits away). Rejects with `bad_bundle` at the first entry that is
 * anything else; what was written until then is the caller's to remove. Resolves with the bytes of the files.
 */
export async function unpackBundle(
  bundle: Uint8Array,
  folder: string,
  limits: BundleLimits = BUNDLE_LIMITS,
): Promise<number> {
  const rules = new BundleRules(limits);
  const controller = new AbortController();
  const unpack = new UnpackSync({
    cwd: folder,
    strict: true,
    preserveOwner: false,
    noMtime: true,
    filter(_path, entry) {
      if (controller.signal.aborted) return false;
      try {
        rules.admit(entry as ReadEntry);
      } catch (error) {
        controller.abort(error);
        return false;
      }
      normaliseMode(entry as ReadEntry);
      return true;
    },
  });
  const done = new Promise<void>((resolve, reject) => {
    // tar's classes are not Node streams: `close` comes when every file is written.
    unpack.on("close", () => resolve());
    unpack.on("error", reject);
  });
  await readArchive(bundle, { parser: unpack, done, rules, limits, signal: controller.signal });
  return rules.fileBytes;
}

function normaliseMode(entry: ReadEntry): void {
  const executable = entry.type === "Directory" || ((entry.mode ?? 0) & 0o111) !== 0;
  entry.mode = executable ? 0o755 : 0o644;
}
