import { randomFillSync, randomInt, randomUUID } from "node:crypto";

/** How many of node's own draws come from one batch of random bytes (lib/internal/crypto/random.js). */
const UUID_BATCH = 128;
const INT_BATCH = 1024;

/** V8's own until the process is a restored one: its state cannot be set from outside and is the same in all clones. */
const native = Math.random;
let draw = native;

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

/**
 * After a restore from a snapshot: what is drawn from now on is this process's own. OpenSSL sees by the process id that it is another
 * process, and draws anew by itself.
 * @param {{ seed?: unknown, pid?: unknown }} restored the payload of RESTORED
 */
export function renew({ seed, pid }) {
  if (Number.isInteger(pid) && pid > 0)
    Object.defineProperty(process, "pid", { value: pid, enumerable: true, configurable: true });
  const state = randomFillSync(new Uint32Array(4));
  const given = Buffer.from(typeof seed === "string" ? seed : "", "base64");
  for (let at = 0; at + 4 <= Math.min(given.length, 16); at += 4)
    state[at / 4] ^= given.readUInt32LE(at);
  draw = generator(state);
  // What was drawn beforehand lies in every clone: it is used up.
  for (let count = 0; count < UUID_BATCH; count++) randomUUID();
  for (let count = 0; count < INT_BATCH; count++) randomInt(2);
}

/**
 * sfc32 (Chris Doty-Humphrey, PractRand), two steps for the 53 bits of a double in [0, 1).
 * @param {Uint32Array} state four words
 */
function generator(state) {
  let [a, b, c, counter] = state;
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
