/** Pieces of work by name. Each answers what it found, which must be the same wherever it runs; who only computes also tells its slices. */
import { closeSync, openSync, readSync, statSync } from "node:fs";

const WORK = { cpu, memory, syscalls, "file-reads": fileReads };

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
