import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { create } from "tar";
import { z } from "zod";
import { Failure, messageOf } from "../failure.ts";

export interface PackedFunction {
  /** cloister.json with what was found out about the rest; the service checks it. */
  config: Record<string, unknown>;
  /** tar.gz. The same files give the same bytes, so an unchanged function is stored once. */
  bundle: Buffer<ArrayBuffer>;
}

/** Never part of a function. */
const LEFT_OUT = new Set([".git", ".DS_Store", "__pycache__", "cloister.json"]);

/** Packs a folder, or one file as a folder with that file alone. */
export async function packFunction(path: string): Promise<PackedFunction> {
  const full = resolve(path);
  const stat = statSync(full, { throwIfNoEntry: false });
  if (!stat) throw new Failure(`${path} does not exist.`, "Name a file or a folder.");
  if (stat.isDirectory()) {
    const config = readConfig(join(full, "cloister.json"));
    const files = readdirSync(full).filter((name) => !LEFT_OUT.has(name));
    if (files.length === 0)
      throw new Failure(`${path} holds no files.`, "Name a function's folder.");
    return { config: { name: nameOf(full), ...config }, bundle: await pack(full, files) };
  }
  if (!stat.isFile()) {
    throw new Failure(`${path} is neither a file nor a folder.`, "Name a file or a folder.");
  }
  const entry = basename(full);
  const config = { name: nameOf(full), runtime: runtimeOf(full), entry };
  return { config, bundle: await pack(dirname(full), [entry]) };
}

/** `files` are the folder's own: an entry for the folder itself would have an empty name, which no reader of tar takes. */
async function pack(folder: string, files: string[]): Promise<Buffer<ArrayBuffer>> {
  const chunks: Buffer[] = [];
  const stream = create(
    {
      gzip: true,
      cwd: folder,
      // No owners and no times: the digest depends on names, modes and content alone.
      portable: true,
      noMtime: true,
      filter: (path) => !LEFT_OUT.has(basename(path)),
      onWriteEntry: (entry) => {
        entry.path = entry.path.replace(/^\.\//, "");
      },
    },
    // Not bare: tar reads a name that begins with @ as an archive to copy from.
    files.map((name) => `./${name}`),
  );
  try {
    for await (const chunk of stream) chunks.push(chunk);
  } catch (error) {
    throw new Failure(
      `${folder} cannot be packed: ${messageOf(error)}.`,
      "Check its files' rights.",
    );
  }
  return Buffer.concat(chunks);
}

function readConfig(file: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return {};
    throw new Failure(`${file} cannot be read: ${messageOf(error)}.`, "Check its rights.");
  }
  try {
    return z.record(z.string(), z.unknown()).parse(JSON.parse(text));
  } catch (error) {
    const what = error instanceof SyntaxError ? error.message : "it must be one JSON object";
    throw new Failure(`${file} is not valid: ${what}.`, "Correct it.");
  }
}

/** A name from a file's or folder's: what a name cannot hold becomes a hyphen. */
function nameOf(full: string): string {
  const stem = basename(full, extname(full)).toLowerCase();
  const name = stem
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 63);
  if (name !== "") return name;
  throw new Failure(`No name can be made of ${basename(full)}.`, "Give one with --name.");
}

function runtimeOf(full: string): string {
  if (extname(full) === ".py") return "python3";
  const magic = Buffer.alloc(4);
  const fd = openSync(full, "r");
  readSync(fd, magic, 0, 4, 0);
  closeSync(fd);
  return magic.equals(Buffer.from("\x7fELF", "latin1")) ? "binary" : "node24";
}
