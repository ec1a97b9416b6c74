import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { Header, type HeaderData } from "tar";
import { CloisterError } from "#errors/catalogue";
import { BundleCache } from "./bundle-cache.ts";
import { unpackBundle } from "./unpack.ts";

let folder: string;
before(async () => {
  process.umask(0o022);
  folder = await mkdtemp(join(tmpdir(), "cloister-bundles-"));
});
after(() => rm(folder, { recursive: true, force: true }));

type Entry = Partial<HeaderData> & { path: string; content?: string | Buffer };

/** A tar.gz made header by header, as only a hostile client would. */
function pack(entries: Entry[]): Buffer {
  const blocks: Buffer[] = [];
  for (const { content = "", ...data } of entries) {
    const body = Buffer.from(content);
    const block = Buffer.alloc(512);
    new Header({ mode: 0o644, size: body.length, type: "File", ...data } as HeaderData).encode(
      block,
      0,
    );
    blocks.push(block, body, Buffer.alloc((512 - (body.length % 512)) % 512));
  }
  blocks.push(Buffer.alloc(1024));
  return gzipSync(Buffer.concat(blocks));
}

const digestOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const fresh = (): Promise<string> => mkdtemp(join(folder, "unpacked-"));

test("files, folders and links inside come in with plain modes", async () => {
  const target = await fresh();
  const bundle = pack([
    { path: "lib/", type: "Directory", mode: 0o7700 },
    { path: "lib/run", content: "#!", mode: 0o6711 },
    { path: "index.mjs", content: "export {}", mode: 0o600 },
    { path: "lib/up", type: "SymbolicLink", linkpath: "../index.mjs" },
    { path: "same", type: "Link", linkpath: "index.mjs" },
  ]);
  assert.equal(await unpackBundle(bundle, target), 11);
  const mode = async (path: string): Promise<number> =>
    (await stat(join(target, path))).mode & 0o7777;
  assert.equal(await mode("lib"), 0o755);
  assert.equal(await mode("lib/run"), 0o755);
  assert.equal(await mode("index.mjs"), 0o644);
  assert.equal(await readFile(join(target, "lib/up"), "utf8"), "export {}");
  assert.equal(await readFile(join(target, "same"), "utf8"), "export {}");
});

const HOSTILE: Record<string, Entry[]> = {
  "a path that climbs": [{ path: "../out", content: "x" }],
  "a path that climbs in the middle": [{ path: "a/../../out", content: "x" }],
  "an absolute path": [{ path: "/etc/out", content: "x" }],
  "an absolute link": [{ path: "l", type: "SymbolicLink", linkpath: "/etc/passwd" }],
  "a link that climbs": [{ path: "a/l", type: "SymbolicLink", linkpath: "../../out" }],
  "a link that climbs behind another": [
    { path: "d", type: "SymbolicLink", linkpath: "." },
    { path: "l", type: "SymbolicLink", linkpath: "d/../../out" },
  ],
  "a hard link out": [{ path: "l", type: "Link", linkpath: "../../etc/passwd" }],
  "a device": [{ path: "sda", type: "BlockDevice" }],
  "a fifo": [{ path: "pipe", type: "FIFO" }],
  "a file written through a link": [
    { path: "d", type: "SymbolicLink", linkpath: "." },
    { path: "d/../../out", content: "x" },
  ],
  nothing: [],
};

for (const [name, entries] of Object.entries(HOSTILE)) {
  test(`refused: ${name}`, async () => {
    const target = await fresh();
    await assert.rejects(
      unpackBundle(pack([...entries]), target),
      (error) => error instanceof CloisterError && error.code === "bad_bundle",
    );
    assert.ok(!(await readdir(folder)).includes("out"));
  });
}

test("bombs end at their bound: too many files, too many bytes, a stream that is no tar", async () => {
  const limits = { unpackedBytes: 100_000, entries: 10 };
  const many = pack(Array.from({ length: 11 }, (_, index) => ({ path: `f${index}` })));
  await assert.rejects(unpackBundle(many, await fresh(), limits), /more than 10 entries/);
  const large = pack([{ path: "zero", content: Buffer.alloc(100_001) }]);
  await assert.rejects(unpackBundle(large, await fresh(), limits), /larger than 100000 bytes/);
  const zeros = gzipSync(Buffer.alloc(4_000_000));
  await assert.rejects(unpackBundle(zeros, await fresh(), limits), CloisterError);
  await assert.rejects(unpackBundle(Buffer.from("no gzip"), await fresh(), limits), /no sound tar/);
  const cut = pack([{ path: "f", content: Buffer.alloc(50_000, "x") }]);
  await assert.rejects(
    unpackBundle(cut.subarray(0, cut.length - 20), await fresh(), limits),
    CloisterError,
  );
});

test("many holders share one fetch; the digest is checked; leftovers are not trusted", async () => {
  const cacheFolder = await fresh();
  const bundle = pack([{ path: "index.mjs", content: "1" }]);
  const digest = digestOf(bundle);
  await mkdir(join(cacheFolder, ".tmp-left"));
  await mkdir(join(cacheFolder, digest));
  let reads = 0;
  const read = async (): Promise<Buffer> => {
    reads++;
    return bundle;
  };
  const cache = await BundleCache.open({ folder: cacheFolder, read });
  const holds = await Promise.all([cache.hold(digest), cache.hold(digest), cache.hold(digest)]);
  assert.equal(reads, 1);
  assert.equal(await readFile(join(holds[0].path, "index.mjs"), "utf8"), "1");
  await assert.rejects(cache.hold("0".repeat(64)), /does not match its digest/);
  await assert.rejects(cache.hold("../x"), /malformed/);
  const again = await BundleCache.open({ folder: cacheFolder, read });
  (await again.hold(digest)).release();
  assert.equal(reads, 2, "only the wrong digest was read again");
  await writeFile(join(cacheFolder, ".boot"), "another boot");
  const rebooted = await BundleCache.open({ folder: cacheFolder, read });
  await rebooted.hold(digest);
  assert.equal(reads, 3);
});

test("the least recently used bundle nobody holds leaves when the disk bound is met", async () => {
  const bundles = ["a", "b", "c"].map((content) => pack([{ path: "index.mjs", content }]));
  const byDigest = new Map(bundles.map((bundle) => [digestOf(bundle), bundle]));
  const [a = "", b = "", c = ""] = byDigest.keys();
  const cacheFolder = await fresh();
  const cache = await BundleCache.open({
    folder: cacheFolder,
    read: async (digest) => byDigest.get(digest),
    maxBytes: 2 * 16_384 + 100,
  });
  const held = await cache.hold(a);
  (await cache.hold(b)).release();
  (await cache.hold(c)).release();
  const names = async (): Promise<string[]> =>
    (await readdir(cacheFolder)).filter((name) => byDigest.has(name)).sort();
  (await cache.hold(b)).release();
  assert.deepEqual(await names(), [a, b].sort());
  held.release();
});
