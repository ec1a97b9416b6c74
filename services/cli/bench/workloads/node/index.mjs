/** Pieces of work by name. Each answers what it found, which must be the same wherever it runs; who only computes also tells its slices. */
import { createCipheriv, createHash, randomBytes } from "node:crypto";
import { closeSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { gunzipSync, gzipSync } from "node:zlib";

const WORK = {
  cpu,
  memory,
  bandwidth,
  syscalls,
  "file-reads": fileReads,
  "small-files": smallFiles,
  json,
  crypto,
  zlib,
};

export default {
  fetch(request) {
    const name = new URL(request.url).searchParams.get("work") ?? "";
    if (!Object.hasOwn(WORK, name)) return new Response("unknown work", { status: 400 });
    return Response.json(WORK[name]());
  },
};

/** Made once: whoever only computes asks for no fresh memory. */
const composite = new Uint8Array(60_000);

/** Computes for some 200 ms: a sieve, floating point, and objects in a map, in slices that few interruptions fall into. */
function cpu() {
  const slicesMs = [];
  let answer;
  for (let slice = 0; slice < 100; slice++) {
    const began = performance.now();
    answer = compute();
    slicesMs.push(performance.now() - began);
  }
  return { answer, slicesMs };
}

function compute() {
  composite.fill(0);
  let primes = 0;
  for (let at = 2; at < composite.length; at++) {
    if (composite[at] === 1) continue;
    primes++;
    for (let more = at * at; more < composite.length; more += at) composite[more] = 1;
  }
  let orbit = 0;
  for (let turn = 0, x = 0.3; turn < 300_000; turn++) {
    x = 3.9 * x * (1 - x);
    if (x > 0.5) orbit++;
  }
  const sums = new Map();
  for (let turn = 0; turn < 4000; turn++) {
    const key = (turn * 7919) % 1009;
    sums.set(key, (sums.get(key) ?? 0) + turn);
  }
  return [primes, orbit, sums.size];
}

/** Touches fresh memory: eight times 16 MiB. */
function memory() {
  let sum = 0;
  for (let turn = 0; turn < 8; turn++) {
    const bytes = new Uint8Array(16 << 20);
    for (let at = 0; at < bytes.length; at += 4096) bytes[at] = turn;
    sum += bytes[4096];
  }
  return { answer: sum };
}

/** Asks the kernel 5000 times. */
function syscalls() {
  let files = 0;
  for (let turn = 0; turn < 5000; turn++) {
    if (statSync(import.meta.filename).isFile()) files++;
  }
  return { answer: files };
}

/** Reads 32 MiB of the program itself in pieces of 64 KiB. */
function fileReads() {
  const file = openSync(process.execPath, "r");
  const piece = Buffer.alloc(65_536);
  let bytes = 0;
  for (let turn = 0; turn < 512; turn++) bytes += readSync(file, piece, 0, piece.length, bytes);
  closeSync(file);
  return { answer: bytes };
}

/** Made once, so that copying touches no fresh memory: 32 MiB to 32 MiB. */
let source;
let target;

/** Copies 512 MiB within memory that is there. */
function bandwidth() {
  source ??= Buffer.alloc(32 << 20, "0123456789abcdef");
  target ??= Buffer.alloc(32 << 20, 1);
  for (let turn = 0; turn < 16; turn++) source.copy(target);
  return { answer: target[target.length - 1] };
}

/** Opens, reads and closes a small file 1000 times. */
function smallFiles() {
  let bytes = 0;
  for (let turn = 0; turn < 1000; turn++) bytes += readFileSync(import.meta.filename).length;
  return { answer: bytes > 0 };
}

/** Some 400 KiB of JSON, written and read ten times. */
function json() {
  const rows = Array.from({ length: 4000 }, (_, id) => ({
    id,
    name: `item ${id}`,
    tags: ["a", "b", String(id % 7)],
    price: (id * 37) % 1000,
    nested: { on: id % 2 === 0, at: [id, id + 1] },
  }));
  let length = 0;
  let sum = 0;
  for (let turn = 0; turn < 10; turn++) {
    const text = JSON.stringify(rows);
    length += text.length;
    for (const { price } of JSON.parse(text)) sum += price;
  }
  return { answer: [length, sum] };
}

/** Hashes and encrypts 16 MiB; draws random bytes, which are asked of the kernel or of OpenSSL's own generator. */
function crypto() {
  const data = Buffer.alloc(4 << 20, "0123456789abcdef");
  const hash = createHash("sha256");
  let tag = "";
  for (let turn = 0; turn < 4; turn++) {
    hash.update(data);
    const cipher = createCipheriv("aes-256-gcm", Buffer.alloc(32, turn), Buffer.alloc(12));
    cipher.update(data);
    cipher.final();
    tag = cipher.getAuthTag().toString("hex");
  }
  let drawn = 0;
  for (let turn = 0; turn < 200; turn++) drawn += randomBytes(4096).length;
  return { answer: [hash.digest("hex"), tag, drawn] };
}

/** Text of 2 MiB compressed and read again, twice. */
function zlib() {
  let text = "";
  for (let line = 0; text.length < 2 << 20; line++)
    text += `${line} ${(line * 2_654_435_761) % 1_000_003} the quick brown fox\n`;
  const plain = Buffer.from(text);
  let bytes = 0;
  for (let turn = 0; turn < 2; turn++) {
    const packed = gzipSync(plain);
    bytes += packed.length + gunzipSync(packed).length;
  }
  return { answer: bytes };
}
