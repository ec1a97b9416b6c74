import crypto, { randomFillSync } from "node:crypto";
import { syncBuiltinESMExports } from "node:module";

/** How many of node's own draws come from one batch of random bytes (lib/internal/crypto/random.js). */
const UUID_BATCH = 128;
const INT_BATCH = 1024;
/** Bytes of a seed that are used, and needed. */
const SEED_BYTES = 16;

/** V8's own until the process is a restored one: its state cannot be set from outside and is the same in all clones. */
const native = Math.random;
let draw = native;
/** What node has drawn beforehand, by name, lies in every clone: it is used up before the next one is given. */
const stale = { uuids: false, integers: false };

/**
 * Takes the place of `Math.random` before any other code can keep it. It is to be called first of all.
 */
export function guardRandom() {
  const random = {
    random() {
      return draw();
    },
  }.random;
  Object.defineProperty(Math, "random", {
    value: random,
    writable: true,
    enumerable: false,
    configurable: true,
  });
}

/** The same for what node draws in batches, in a process that will be frozen with a function: before that is loaded. */
export function guardBatches() {
  const { randomInt, randomUUID } = crypto;
  const useUp = {
    uuids() {
      for (let count = 0; count < UUID_BATCH; count++) randomUUID();
    },
    integers() {
      for (let count = 0; count < INT_BATCH; count++) randomInt(2);
    },
  };
  guard(crypto, "randomUUID", "uuids", useUp.uuids);
  guard(crypto, "randomInt", "integers", useUp.integers);
  guard(Object.getPrototypeOf(globalThis.crypto), "randomUUID", "uuids", useUp.uuids);
  syncBuiltinESMExports();
}

function guard(holder, name, batch, useUp) {
  const described = Object.getOwnPropertyDescriptor(holder, name);
  const own = described.value;
  const guarded = {
    [name](...values) {
      if (stale[batch]) {
        stale[batch] = false;
        useUp();
      }
      return Reflect.apply(own, this, values);
    },
  }[name];
  Object.defineProperty(guarded, "length", { value: own.length, configurable: true });
  Object.defineProperty(holder, name, { ...described, value: guarded });
}

/**
 * After a restore from a snapshot: what is drawn from now on is this process's own. OpenSSL sees by the process id that it is another
 * process, and draws anew by itself.
 * @param {{ seed?: unknown, pid?: unknown }} restored the payload of RESTORED
 */
export function renew({ seed, pid }) {
  if (Number.isInteger(pid) && pid > 0)
    Object.defineProperty(process, "pid", { value: pid, enumerable: true, configurable: true });
  let state = Buffer.from(typeof seed === "string" ? seed : "", "base64");
  if (state.length < SEED_BYTES) state = randomFillSync(Buffer.alloc(SEED_BYTES));
  draw = generator(state);
  stale.uuids = true;
  stale.integers = true;
}

/**
 * sfc32 (Chris Doty-Humphrey, PractRand), two steps for the 53 bits of a double in [0, 1).
 * @param {Buffer} state at least 16 bytes that nobody else has
 */
function generator(state) {
  let a = state.readInt32LE(0);
  let b = state.readInt32LE(4);
  let c = state.readInt32LE(8);
  let counter = state.readInt32LE(12);
  const next = () => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  // The first ones still show what the state was.
  for (let count = 0; count < 12; count++) next();
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) * 2 ** -53;
}
