import { createHash } from "node:crypto";
import {
  chmodSync,
  closeSync,
  copyFileSync,
  lchownSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";

export interface TreeFacts {
  /** sha256, hex, over path, type, mode, content and link target of everything in the tree. */
  digest: string;
  /** Sum of the sizes of regular files. */
  sizeBytes: number;
}

/** Every path below `root`, relative to it, sorted by code unit so that every machine agrees. */
export function listTree(root: string): string[] {
  const paths: string[] = [];
  const walk = (folder: string) => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      paths.push(path);
      if (entry.isDirectory()) walk(path);
    }
  };
  walk("");
  return paths.sort();
}

/**
 * Makes a tree fit for an image: owned by root, world-readable, no set-id or write bits for others, times zero.
 * Throws if it holds anything but folders, regular files and symbolic links.
 */
export function normaliseTree(root: string): void {
  const paths = listTree(root);
  for (const path of ["", ...paths]) {
    const full = join(root, path);
    const stat = lstatSync(full);
    if (!stat.isDirectory() && !stat.isFile() && !stat.isSymbolicLink()) {
      throw new Error(`${path} is neither a file, a folder nor a link: an image cannot hold it.`);
    }
    lchownSync(full, 0, 0);
    if (stat.isDirectory()) chmodSync(full, path === "tmp" || path === "dev/shm" ? 0o1777 : 0o755);
    if (stat.isFile()) chmodSync(full, (stat.mode & 0o111) === 0 ? 0o644 : 0o755);
  }
  // Deepest first: writing into a folder would touch its time again.
  for (const path of [...paths.reverse(), ""]) lutimesSync(join(root, path), 0, 0);
}

/** Digest and size of a tree as it stands. */
export function measureTree(root: string): TreeFacts {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  for (const path of listTree(root)) {
    const full = join(root, path);
    const stat = lstatSync(full);
    const mode = (stat.mode & 0o7777).toString(8);
    if (stat.isSymbolicLink()) {
      hash.update(`link\0${path}\0${readlinkSync(full)}\0`);
    } else if (stat.isDirectory()) {
      hash.update(`folder\0${path}\0${mode}\0`);
    } else if (stat.isFile()) {
      hash.update(`file\0${path}\0${mode}\0${stat.size}\0${hashFile(full)}\0`);
      sizeBytes += stat.size;
    } else {
      hash.update(`other\0${path}\0${mode}\0`);
    }
    hash.update(`${stat.uid}:${stat.gid}:${stat.isDirectory() ? 0 : stat.mtimeMs}\0`);
  }
  return { digest: hash.digest("hex"), sizeBytes };
}

/** sha256 of a file's content, hex. */
export function hashFile(path: string): string {
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafe(1 << 20);
  const fd = openSync(path, "r");
  try {
    for (let got = readSync(fd, buffer); got > 0; got = readSync(fd, buffer)) {
      hash.update(buffer.subarray(0, got));
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest("hex");
}

/** sha256 of text, hex. */
export function hashText(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** Writes a file and the folders above it. */
export function placeText(root: string, path: string, text: string): void {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, text);
}

/** Copies one file's content and mode (links are followed) and makes the folders above it. */
export function placeFile(root: string, path: string, from: string): void {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  copyFileSync(from, full);
}

/** Makes a symbolic link and the folders above it. */
export function placeLink(root: string, path: string, target: string): void {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  symlinkSync(target, full);
}

/** Copies folder `from` to `path`; links stay links. `keep` sees paths relative to `from`; a folder it refuses is left out whole. */
export function placeTree(
  root: string,
  path: string,
  from: string,
  keep: (path: string) => boolean = () => true,
): void {
  const walk = (folder: string) => {
    mkdirSync(join(root, path, folder), { recursive: true });
    for (const entry of readdirSync(join(from, folder), { withFileTypes: true })) {
      const inner = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (!keep(inner)) continue;
      const source = join(from, inner);
      const target = join(root, path, inner);
      if (entry.isDirectory()) walk(inner);
      else if (entry.isSymbolicLink()) symlinkSync(readlinkSync(source), target);
      else if (entry.isFile()) copyFileSync(source, target);
    }
  };
  walk("");
}
