import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import {
  appendFileSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { type BuiltImage, buildImages, type ImageName } from "./build.ts";
import { readElf } from "./elf.ts";
import { ImageStore } from "./store.ts";
import { listTree } from "./tree.ts";

const ROOT = join(import.meta.dirname, "../..");
const NAMES: ImageName[] = ["node24", "python3", "binary"];

let scratch: string;
let source: string;
let images: BuiltImage[];
const directory = () => join(scratch, "images");
const layer = (digest: string) => join(directory(), "layers", digest);

before(async () => {
  scratch = mkdtempSync(join(tmpdir(), "cloister-images-"));
  source = join(scratch, "source");
  mkdirSync(join(source, "runtime/runners/node"), { recursive: true });
  // What the Node runner does is no matter of the builder.
  writeFileSync(join(source, "runtime/runners/node/runner.mjs"), "process.exit(0);\n");
  const python = "runtime/runners/python";
  cpSync(join(ROOT, python), join(source, python), { recursive: true });
  for (const name of ["node_modules", "target"]) symlinkSync(join(ROOT, name), join(source, name));
  images = await buildImages({ directory: directory(), source, names: NAMES });
});

after(() => rmSync(scratch, { recursive: true, force: true }));

function image(name: ImageName): BuiltImage {
  const found = images.find((entry) => entry.name === name);
  assert.ok(found);
  return found;
}

/** All layers of an image as one tree, by hard links. */
function assemble(name: ImageName): string {
  const root = join(scratch, `root-${name}`);
  if (existsSync(root)) return root;
  mkdirSync(root);
  for (const digest of image(name).layers) {
    execFileSync("cp", ["-al", `${layer(digest)}/.`, root]);
  }
  return root;
}

function inside(name: ImageName, argv: string[]): string {
  const env = image(name).runner.env;
  return execFileSync("/usr/sbin/chroot", [assemble(name), ...argv], { encoding: "utf8", env });
}

test("the same inputs give the same digests, whatever was built before", async () => {
  const other = join(scratch, "again");
  mkdirSync(other);
  cpSync(join(directory(), "cache"), join(other, "cache"), { recursive: true });
  const again = await buildImages({ directory: other, source, names: NAMES, force: true });
  assert.deepEqual(
    again.map(({ name, digest, layers }) => ({ name, digest, layers })),
    images.map(({ name, digest, layers }) => ({ name, digest, layers })),
  );
  rmSync(other, { recursive: true });
});

test("a layer's name is the digest of what it holds", () => {
  const store = new ImageStore(directory(), () => {});
  for (const built of images) store.verify(built);
});

test("nothing is built twice, and a runner's edit builds its layer only", async () => {
  const lines: string[] = [];
  const build = () =>
    buildImages({
      directory: directory(),
      source,
      names: NAMES,
      onProgress: (line) => lines.push(line),
    });
  const same = await build();
  assert.equal(lines.length, 0);
  assert.ok(same.every((built) => !built.changed));
  const file = join(source, "runtime/runners/python/runner.py");
  const former = readFileSync(file);
  appendFileSync(file, "# edited\n");
  const edited = await build();
  assert.deepEqual(
    lines.map((line) => line.split(":")[0]),
    ["layer runner-python"],
  );
  assert.deepEqual(
    edited.map((built) => built.changed),
    [false, true, false],
  );
  // The layer before the edit belongs to the previous generation, which a running sandboxd may hold.
  assert.ok(image("python3").layers.every((digest) => existsSync(layer(digest))));
  writeFileSync(file, former);
  const back = await build();
  assert.deepEqual(
    back.map((built) => built.digest),
    images.map((built) => built.digest),
  );
});

test("layers no image names for two generations are removed", async () => {
  const loose = layer("0".repeat(64));
  mkdirSync(loose);
  await buildImages({ directory: directory(), source, names: ["binary"] });
  assert.ok(!existsSync(loose));
  assert.ok(image("node24").layers.every((digest) => existsSync(layer(digest))));
});

test("every file belongs to root, is readable by all, and has no special powers", () => {
  for (const digest of new Set(images.flatMap((built) => built.layers))) {
    for (const path of listTree(layer(digest))) {
      const stat = lstatSync(join(layer(digest), path));
      assert.deepEqual([stat.uid, stat.gid], [0, 0], path);
      assert.ok(stat.isFile() || stat.isDirectory() || stat.isSymbolicLink(), path);
      if (stat.isSymbolicLink()) continue;
      assert.equal(stat.mode & 0o6000, 0, path);
      assert.equal(
        stat.mode & (stat.isDirectory() ? 0o555 : 0o444),
        stat.isDirectory() ? 0o555 : 0o444,
        path,
      );
      if (stat.isFile()) assert.equal(stat.mode & 0o022, 0, path);
    }
  }
});

test("every ELF file finds its loader and all libraries it needs in its image", () => {
  for (const built of images) {
    const files = built.layers.flatMap((digest) =>
      listTree(layer(digest)).map((path) => join(layer(digest), path)),
    );
    const names = new Set(files.map((path) => basename(path)));
    let seen = 0;
    for (const path of files.filter((file) => lstatSync(file).isFile())) {
      const elf = readElf(path);
      if (!elf) continue;
      seen++;
      for (const soname of elf.needed) assert.ok(names.has(soname), `${path} needs ${soname}`);
      if (elf.interpreter)
        assert.ok(
          existsSync(join(assemble(built.name as ImageName), elf.interpreter)),
          elf.interpreter,
        );
    }
    assert.ok(seen > 5);
  }
});

test("the mount points of a sandbox are in the lowest layer", () => {
  for (const built of images) {
    const lowest = layer(built.layers[0] ?? "");
    for (const path of ["proc", "dev", "dev/shm", "tmp", "fn"]) {
      assert.ok(lstatSync(join(lowest, path)).isDirectory(), path);
    }
  }
});

test("node runs in its image", () => {
  assert.match(inside("node24", ["/usr/bin/node", "--version"]), /^v24\./);
  const zone =
    "console.log(new Date(0).toLocaleString('de', {timeZone: 'Asia/Tokyo', timeStyle: 'short'}))";
  assert.equal(inside("node24", ["/usr/bin/node", "-e", zone]), "09:00\n");
});

test("python runs in its image with TLS, SQLite, ctypes, asyncio and time zones", () => {
  const [python = "", ...flags] = image("python3").runner.argv.slice(0, -1);
  const program = `
import ssl, sqlite3, ctypes, asyncio, zoneinfo, lzma, bz2, zlib, uuid, decimal, hashlib, json, http.server, email, xml.etree.ElementTree, multiprocessing, locale
from datetime import datetime
assert len(ssl.create_default_context().get_ca_certs()) > 100
assert sqlite3.connect(":memory:").execute("select 1+1").fetchone() == (2,)
assert ctypes.CDLL("libc.so.6").getpid() > 0
print(asyncio.run(asyncio.sleep(0, "ok")), datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset())
import pwd
print(pwd.getpwuid(1000).pw_name, json.__cached__)
`;
  const [first, second] = inside("python3", [python, ...flags, "-c", program]).split("\n");
  assert.equal(first, "ok 2:00:00");
  assert.match(
    second ?? "",
    /^function \/usr\/lib\/python3\.\d+\/json\/__pycache__\/__init__\.cpython-\d+\.pyc$/,
  );
});

test("the python image starts from compiled files only", () => {
  const root = assemble("python3");
  const sources = listTree(root).filter(
    (path) => path.endsWith(".py") && !/lib2to3|\/site-packages\//.test(path),
  );
  assert.ok(sources.length > 300);
  for (const path of sources.filter((file) => file !== "cloister/runner.py")) {
    const folder = join(root, path, "..", "__pycache__");
    const stem = basename(path, ".py");
    const compiled =
      existsSync(folder) && readdirSync(folder).find((name) => name.startsWith(`${stem}.cpython`));
    assert.ok(compiled, path);
    // PEP 552: flags 1 is a hash-based file that is not checked against its source.
    assert.equal(readFileSync(join(folder, compiled)).readUInt32LE(4), 1, path);
  }
});

test("the certificate bundle holds certificates that parse", () => {
  const bundle = readFileSync(
    join(assemble("binary"), "etc/ssl/certs/ca-certificates.crt"),
    "utf8",
  );
  const certificates =
    bundle.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  assert.ok(certificates.length > 100);
  for (const certificate of certificates) assert.ok(new X509Certificate(certificate).ca);
});

test("a build that is killed leaves nothing that is used, and the next one finishes", async () => {
  const other = join(scratch, "killed");
  mkdirSync(other);
  cpSync(join(directory(), "cache"), join(other, "cache"), { recursive: true });
  const script = join(scratch, "build.ts");
  const options = JSON.stringify({ directory: other, source, names: ["binary"] });
  writeFileSync(
    script,
    `import { buildImages } from ${JSON.stringify(join(import.meta.dirname, "build.ts"))};
     await buildImages({ ...${options}, onProgress: (line) => console.log(line) });`,
  );
  const child = spawn(process.execPath, [script], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.ok(existsSync(join(other, "build.lock")));
  assert.ok(!existsSync(join(other, "binary.json")));
  const [built] = await buildImages({ directory: other, source, names: ["binary"] });
  assert.equal(built?.digest, image("binary").digest);
  assert.deepEqual(readdirSync(join(other, "tmp")), []);
  assert.ok(!existsSync(join(other, "build.lock")));
});

test("two builds at once take turns", async () => {
  const other = join(scratch, "twice");
  mkdirSync(other);
  cpSync(join(directory(), "cache"), join(other, "cache"), { recursive: true });
  const both = await Promise.all(
    [1, 2].map(() => buildImages({ directory: other, source, names: ["binary"] })),
  );
  assert.deepEqual(
    both.map(([built]) => built?.digest),
    [image("binary").digest, image("binary").digest],
  );
});

test("a missing runner and an unknown image are explained", async () => {
  const empty = join(scratch, "empty");
  mkdirSync(join(empty, "runtime/runners"), { recursive: true });
  await assert.rejects(
    buildImages({ directory: directory(), source: empty, names: ["binary"] }),
    /binary runner is not built/,
  );
  await assert.rejects(
    buildImages({ directory: directory(), source: empty, names: ["node24"] }),
    /Node 24 is not installed/,
  );
});
