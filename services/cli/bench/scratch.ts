import { randomBytes } from "node:crypto";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { z } from "zod";
import { startTimeOf } from "#embedded/process-life";
import { Failure, messageOf } from "../failure.ts";
import { type Folders, foldersOf, imagesFolder } from "../instance/folders.ts";
import { makeFolders } from "../instance/services.ts";

/** Folders that go with a benchmark. */
export interface Scratch {
  folders: Folders;
  /** Empty, and beside the images' layers, because hard links stay within one file system. */
  rootfs: string;
  remove(): void;
}

const PREFIX = "cloister-bench-";
const OWNER = "owner.json";
const ownerSchema = z.object({
  pid: z.number().int().positive(),
  startTime: z.string(),
  rootfs: z.string().regex(/^bench-[0-9a-f]{8}$/),
});

/** Makes them, and removes those of benchmarks that were killed. Throws a Failure; then nothing is left. */
export function makeScratch(): Scratch {
  removeAbandoned();
  const data = mkdtempSync(join(tmpdir(), PREFIX));
  const rootfs = join(imagesFolder(), `bench-${randomBytes(4).toString("hex")}`);
  const owner: z.infer<typeof ownerSchema> = {
    pid: process.pid,
    startTime: startTimeOf(process.pid) ?? "",
    rootfs: basename(rootfs),
  };
  writeFileSync(join(data, OWNER), JSON.stringify(owner), { mode: 0o600 });
  chmodSync(data, 0o711);
  const folders = foldersOf(data);
  try {
    makeFolders(folders);
    mkdirSync(rootfs, { mode: 0o755 });
  } catch (error) {
    removeAll(folders, rootfs);
    throw new Failure(`The benchmark cannot start: ${messageOf(error)}.`, "Run ./cloister doctor.");
  }
  return { folders, rootfs, remove: () => removeAll(folders, rootfs) };
}

function removeAll(folders: Folders, rootfs: string): void {
  for (const folder of [rootfs, folders.run, folders.data])
    rmSync(folder, { recursive: true, force: true });
}

/** A folder of another user's, or without an owner in it, is none of ours: its name alone proves nothing. */
function removeAbandoned(): void {
  for (const name of readdirSync(tmpdir()).filter((one) => one.startsWith(PREFIX))) {
    const data = join(tmpdir(), name);
    try {
      if (lstatSync(data).uid !== process.getuid?.()) continue;
      const owner = ownerSchema.parse(JSON.parse(readFileSync(join(data, OWNER), "utf8")));
      if (startTimeOf(owner.pid) === owner.startTime) continue;
      removeAll(foldersOf(data), join(imagesFolder(), owner.rootfs));
    } catch {
      // Being made, or being removed, or not ours.
    }
  }
}
