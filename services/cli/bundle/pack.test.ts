import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { x } from "tar";
import { packFunction } from "./pack.ts";

const folder = mkdtempSync(join(tmpdir(), "cloister-pack-"));
after(() => rmSync(folder, { recursive: true }));

let next = 1;
function folderOf(files: Record<string, string>): string {
  const root = join(folder, `fn-${next++}`);
  mkdirSync(root);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(root, path, ".."), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

/** What a strict reader of tar finds in the bundle. */
async function contentOf(bundle: Buffer): Promise<Record<string, string>> {
  const archive = join(folder, `bundle-${next}.tar.gz`);
  const out = join(folder, `out-${next++}`);
  writeFileSync(archive, bundle);
  mkdirSync(out);
  await x({ file: archive, cwd: out, strict: true });
  const found: Record<string, string> = {};
  for (const entry of readdirSync(out, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) found[path.slice(out.length + 1)] = readFileSync(path, "utf8");
  }
  return found;
}

test("a folder's files are packed by their paths in it, without what is no part of a function", async () => {
  const root = folderOf({
    "index.mjs": "1",
    "lib/deep/one.mjs": "2",
    "@scope/two.mjs": "3",
    "-dash.mjs": "4",
    "cloister.json": '{"memoryMb": 128}',
    ".git/HEAD": "x",
    "lib/__pycache__/a.pyc": "x",
  });
  const { config, bundle } = await packFunction(root);
  assert.deepEqual(await contentOf(bundle), {
    "index.mjs": "1",
    "lib/deep/one.mjs": "2",
    "@scope/two.mjs": "3",
    "-dash.mjs": "4",
  });
  assert.deepEqual(config, { name: "fn-1", memoryMb: 128 });
});

test("one file is a folder with that file alone", async () => {
  const root = folderOf({ "@odd name.py": "5", "other.py": "6" });
  const { config, bundle } = await packFunction(join(root, "@odd name.py"));
  assert.deepEqual(await contentOf(bundle), { "@odd name.py": "5" });
  assert.deepEqual(config, { name: "odd-name", runtime: "python3", entry: "@odd name.py" });
});

test("the same files give the same bytes", async () => {
  const files = { "index.mjs": "1", "lib/one.mjs": "2" };
  const [one, other] = await Promise.all([
    packFunction(folderOf(files)),
    packFunction(folderOf(files)),
  ]);
  assert.ok(one.bundle.equals(other.bundle));
});

test("a folder without files is refused", async () => {
  const root = folderOf({ "cloister.json": "{}" });
  await assert.rejects(packFunction(root), /holds no files/);
});
