import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { create } from "tar";
import { functionConfigSchema } from "#contracts/function";
import type { Finding } from "#contracts/needs";
import { lookAtBundle } from "./look-at-bundle.ts";

const SPAWNS = 'import { spawn } from "node:child_process";\nspawn("x");\n';

async function look(files: Record<string, string | Buffer>, config: object = {}) {
  const folder = mkdtempSync(join(tmpdir(), "cloister-look-"));
  try {
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(join(folder, dirname(path)), { recursive: true });
      writeFileSync(join(folder, path), content);
    }
    const pieces: Buffer[] = [];
    for await (const piece of create({ gzip: true, cwd: folder }, Object.keys(files)))
      pieces.push(piece);
    const checked = functionConfigSchema.parse({ name: "fn", ...config });
    return (await lookAtBundle(Buffer.concat(pieces), checked)).findings;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const told = (findings: readonly Finding[]): string[] =>
  findings.map(({ need, what, file, line }) => `${need}: ${what} ${file ?? "-"}:${line ?? "-"}`);

/** The first bytes of an ELF file for a machine. */
function elf(machine: number): Buffer {
  const bytes = Buffer.alloc(64);
  bytes.write("\x7fELF", "latin1");
  bytes.writeUInt16LE(machine, 18);
  return bytes;
}

test("what the function's own code does is a need, what its dependencies might do is a hint", async () => {
  const { needs, hints, complete } = await look({
    "index.mjs": SPAWNS,
    "node_modules/dep/index.js": SPAWNS,
    "test/index.test.mjs": SPAWNS,
    "lib/only.mjs": 'import { spawn } from "node:child_process";\n',
  });
  assert.deepEqual(told(needs), ["subprocess: spawn of child_process index.mjs:2"]);
  assert.deepEqual(told(hints).sort(), [
    "subprocess: import of child_process lib/only.mjs:1",
    "subprocess: spawn of child_process node_modules/dep/index.js:2",
    "subprocess: spawn of child_process test/index.test.mjs:2",
  ]);
  assert.equal(complete, true);
});

test("of a file that a bundler made nobody knows what is the function's own", async () => {
  const mark = "// node_modules/dep/index.js\n";
  const long = `${"x".repeat(3000)};\n`;
  const { needs, hints } = await look({ "a.mjs": mark + SPAWNS, "b.mjs": long + SPAWNS });
  assert.deepEqual(told(needs), []);
  assert.equal(hints.length, 2);
});

test("native code is told with its machine, wherever it lies", async () => {
  const { needs, hints } = await look({
    "node_modules/x/build/x.node": elf(62),
    "site-packages/y/y.cpython-311-x86_64-linux-gnu.so": elf(183),
    "lib/z.so.1.2": "no such file",
    "lib/short.so": "",
  });
  assert.deepEqual(told(needs).sort(), [
    "native-addon: native code for aarch64 site-packages/y/y.cpython-311-x86_64-linux-gnu.so:-",
    "native-addon: native code for x86_64 node_modules/x/build/x.node:-",
  ]);
  assert.equal(hints.length, 2);
});

test("a configuration has needs of its own", async () => {
  const binary = await look(
    { main: elf(62) },
    { runtime: "binary", entry: "main", egress: ["example.org"] },
  );
  assert.deepEqual(told(binary.needs), [
    "native-program: the runtime is binary main:-",
    "egress: egress names example.org -:-",
  ]);
});

test("a bundle too large to be looked through says so", async () => {
  const filler = Buffer.alloc(250 * 1024, "//\n");
  const files = Object.fromEntries(Array.from({ length: 20 }, (_, n) => [`f${n}.mjs`, filler]));
  assert.equal((await look(files)).complete, false);
  assert.equal((await look({ "one.mjs": Buffer.alloc(300 * 1024, "//\n") })).complete, false);
  const many = Object.fromEntries(Array.from({ length: 40 }, (_, n) => [`f${n}.mjs`, SPAWNS]));
  const { needs } = await look(many);
  assert.ok(needs.length > 0 && needs.length <= 32);
});
