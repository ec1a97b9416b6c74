import { posix } from "node:path";
import { LIMITS } from "#contracts/function";
import { CloisterError } from "#errors/catalogue";

/** What a tar archive says of one entry. */
export interface BundleEntry {
  path: string;
  /** tar's name of the type: File, Directory, SymbolicLink, Link … */
  type: string;
  linkpath?: string | undefined;
  /** Bytes of content. */
  size: number;
}

export interface BundleLimits {
  unpackedBytes: number;
  entries: number;
}

export const BUNDLE_LIMITS: BundleLimits = {
  unpackedBytes: LIMITS.bundleUnpackedBytes,
  entries: LIMITS.bundleEntries,
};

type Kind = "file" | "folder" | "link";

/** How long a path or a link's target may be, characters. */
const MAX_PATH = 4096;
/** Folders above an entry at most. */
const MAX_DEPTH = 128;

/**
 * Which entries may be in a bundle: plain files, folders and links that stay inside, each name once. The gateway asks when a bundle is
 * uploaded, the worker again before it writes one to disk.
 */
export class BundleRules {
  readonly #limits: BundleLimits;
  readonly #seen = new Map<string, Kind>();
  #entries = 0;
  #fileBytes = 0;

  constructor(limits: BundleLimits = BUNDLE_LIMITS) {
    this.#limits = limits;
  }

  get entries(): number {
    return this.#entries;
  }

  /** Bytes of all files so far. */
  get fileBytes(): number {
    return this.#fileBytes;
  }

  /** Takes the next entry in; throws `bad_bundle`, which names it, when it may not be there. */
  admit(entry: BundleEntry): void {
    const shown = JSON.stringify(entry.path.slice(0, 200));
    const kind = kindOf(entry, shown);
    if (++this.#entries > this.#limits.entries)
      throw bad(`The bundle has more than ${this.#limits.entries} entries`);
    this.#fileBytes += entry.size;
    if (this.#fileBytes > this.#limits.unpackedBytes)
      throw bad(
        `The bundle is larger than ${this.#limits.unpackedBytes} bytes when unpacked, at ${shown}`,
      );
    const name = nameOf(entry.path);
    if (name === ".") {
      if (kind !== "folder") throw bad(`The bundle's entry ${shown} has no name`);
      return;
    }
    this.#place(name, kind, shown);
    if (entry.type === "Link" && this.#seen.get(nameOf(entry.linkpath ?? "")) !== "file")
      throw bad(`The bundle's hard link ${shown} leads to no file before it`);
  }

  #place(name: string, kind: Kind, shown: string): void {
    const parts = name.split("/");
    if (parts.length > MAX_DEPTH)
      throw bad(`The bundle's entry ${shown} is deeper than ${MAX_DEPTH} folders`);
    let folder = "";
    for (const part of parts.slice(0, -1)) {
      folder = folder === "" ? part : `${folder}/${part}`;
      const above = this.#seen.get(folder);
      if (above === undefined) this.#seen.set(folder, "folder");
      else if (above !== "folder")
        throw bad(`The bundle's entry ${shown} lies below something that is no folder`);
    }
    const before = this.#seen.get(name);
    if (before !== undefined && !(before === "folder" && kind === "folder"))
      throw bad(`The bundle has the entry ${shown} twice`);
    this.#seen.set(name, kind);
    // Folders that no entry of their own tells of count too: a long path must not be a cheap way to many.
    if (this.#seen.size > 2 * this.#limits.entries)
      throw bad(`The bundle has more than ${2 * this.#limits.entries} folders and files`);
  }
}

export const bad = (detail: string): CloisterError => new CloisterError("bad_bundle", detail);

const nameOf = (path: string): string => posix.normalize(path).replace(/\/$/, "");

function kindOf(entry: BundleEntry, shown: string): Kind {
  if (!isInside(entry.path)) throw bad(`The bundle's entry ${shown} leads out of the bundle`);
  switch (entry.type) {
    case "File":
    case "OldFile":
    case "ContiguousFile":
      return "file";
    case "Directory":
      return "folder";
    case "SymbolicLink":
      if (linkStaysInside(entry.path, entry.linkpath ?? "")) return "link";
      throw bad(`The bundle's link ${shown} leads out of the bundle`);
    case "Link":
      if (isInside(entry.linkpath ?? "")) return "file";
      throw bad(`The bundle's hard link ${shown} leads out of the bundle`);
    default:
      throw bad(`The bundle's entry ${shown} is neither file, folder nor link`);
  }
}

/** Relative, without `..` or NUL. */
function isInside(path: string): boolean {
  return (
    path.length > 0 &&
    path.length <= MAX_PATH &&
    !path.startsWith("/") &&
    !path.includes("\0") &&
    !path.split("/").includes("..")
  );
}

/**
 * A link's folder is a real folder (nothing lies below a link), so `..` at the start of its target can be counted;
 * `..` after a name could pass through another link and is refused.
 */
function linkStaysInside(path: string, target: string): boolean {
  if (
    target.length === 0 ||
    target.length > MAX_PATH ||
    target.startsWith("/") ||
    target.includes("\0")
  )
    return false;
  const depth = nameOf(path).split("/").length - 1;
  let ups = 0;
  let named = false;
  for (const part of target.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") named = true;
    else if (named || ++ups > depth) return false;
  }
  return true;
}
