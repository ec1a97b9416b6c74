import type { ReadEntry } from "tar";
import type { FunctionConfig } from "#contracts/function";
import { type BundleFindings, type Finding, findingsOfConfig } from "#contracts/needs";
import { BUNDLE_LIMITS, type BundleLimits } from "./entry-rules.ts";
import { inspectBundle } from "./read-archive.ts";
import { isSource, scanSource } from "./source-scan.ts";

/** A source larger than this is built, not written, bytes. */
const MAX_SOURCE_BYTES = 256 * 1024;
/** What is looked through at most, of the function's own and of what it depends on, bytes. */
const BUDGET = { own: 4 * 1024 * 1024, dependency: 8 * 1024 * 1024 };
/** Findings kept of each kind. */
const MAX_FINDINGS = 16;
/** More findings of one kind in one file tell nothing new. */
const MAX_PER_FILE = 2;

const DEPENDENCY =
  /(?:^|\/)(?:node_modules|site-packages|dist-packages|vendor|\.?venv|__pypackages__)\//;
/** Own, but not what a call runs. */
const ASIDE =
  /(?:^|\/)(?:tests?|__tests__|spec|scripts|docs|examples)\/|\.(?:test|spec)\.[^/]+$|(?:^|\/)(?:test_[^/]*|[^/]*_test|conftest|setup)\.py$/;
/** Marks of bundlers, which put dependencies into the function's own file. */
const BUNDLED = ["node_modules/", "__webpack_require__", "__commonJS("];
const WRITTEN_LINE = 2000;

const ADDON = /\.(?:node|so(?:\.\d+)*)$/;
/** Enough of an ELF file to name its machine. */
const ELF_HEAD_BYTES = 20;
/** e_machine, elf(5). */
const MACHINES: Record<number, string> = { 3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64" };

/** What placement wants to know of a bundle; gathers while the archive is read. */
class BundleLook {
  readonly needs: Finding[];
  readonly hints: Finding[] = [];
  complete = true;
  readonly #left = { ...BUDGET };

  constructor(config: FunctionConfig) {
    this.needs = findingsOfConfig(config);
  }

  /** Hears of an entry that the bundle rules have admitted; reads as much of it as is needed. */
  entry(entry: ReadEntry): void {
    const { path } = entry;
    if (ADDON.test(path)) this.#read(entry, ELF_HEAD_BYTES, (head) => this.#addon(path, head));
    else if (isSource(path) && this.#affords(path, entry.size))
      this.#read(entry, entry.size, (source) => this.#source(path, source));
    else entry.resume();
  }

  #affords(path: string, size: number): boolean {
    const whose = DEPENDENCY.test(path) ? "dependency" : "own";
    if (size > MAX_SOURCE_BYTES || size > this.#left[whose]) {
      this.complete = false;
      return false;
    }
    this.#left[whose] -= size;
    return true;
  }

  #read(entry: ReadEntry, bytes: number, then: (content: Buffer) => void): void {
    const chunks: Buffer[] = [];
    let left = bytes;
    entry.on("data", (chunk: Buffer) => {
      if (left > 0) chunks.push(chunk.subarray(0, left));
      left -= chunk.length;
    });
    entry.on("end", () => then(Buffer.concat(chunks)));
  }

  #addon(path: string, head: Buffer): void {
    const elf = head.length === ELF_HEAD_BYTES && head.readUInt32BE(0) === 0x7f454c46;
    const machine = elf ? (MACHINES[head.readUInt16LE(18)] ?? "another machine") : undefined;
    const what = machine ? `native code for ${machine}` : "named as native code, but no ELF file";
    this.#keep(elf ? this.needs : this.hints, { need: "native-addon", what, file: path });
  }

  #source(path: string, source: Buffer): void {
    const seen = scanSource(path, source);
    if (seen.length === 0) return;
    const own = !DEPENDENCY.test(path) && !ASIDE.test(path) && !isBuilt(source);
    for (const { used, ...finding } of seen.slice(0, MAX_PER_FILE))
      this.#keep(own && used ? this.needs : this.hints, finding);
  }

  #keep(findings: Finding[], finding: Finding): void {
    if (findings.length < MAX_FINDINGS) findings.push(finding);
  }
}

/** Whether a file was made by a program, of other files. */
function isBuilt(source: Buffer): boolean {
  if (BUNDLED.some((mark) => source.includes(mark))) return true;
  for (let at = 0; at < source.length; ) {
    const end = source.indexOf("\n", at);
    if ((end < 0 ? source.length : end) - at > WRITTEN_LINE) return true;
    if (end < 0) return false;
    at = end + 1;
  }
  return false;
}

/**
 * Reads a tar.gz without keeping anything of it, and looks for what its function needs. Resolves with the bytes of its files and with what was
 * found; rejects with `bad_bundle`.
 */
export async function lookAtBundle(
  bundle: Uint8Array,
  config: FunctionConfig,
  limits: BundleLimits = BUNDLE_LIMITS,
): Promise<{ unpackedBytes: number; findings: BundleFindings }> {
  const look = new BundleLook(config);
  const unpackedBytes = await inspectBundle(bundle, limits, (entry) => look.entry(entry));
  const { needs, hints, complete } = look;
  return { unpackedBytes, findings: { needs, hints, complete } };
}
