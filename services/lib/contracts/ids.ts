import { randomFillSync } from "node:crypto";

const ALPHABET = "0123456789abcdefghijklmnopqrstuv";
const RANDOM_BYTES = 10;
/** Random bytes for some hundred ids: asking for a few costs as much as asking for all. No byte is used twice. */
const pool = Buffer.alloc(400 * RANDOM_BYTES);
let used = pool.length;

/** `prefix_` and 26 base-32 characters: 48 bits of time (ms), then 80 random bits, so ids sort by time. */
export function newId(
  prefix: "inv" | "ten" | "key" | "fn" | "ver" | "node" | "req" | "cmp",
): string {
  if (used === pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  let time = Date.now();
  let head = "";
  for (let i = 0; i < 10; i++) {
    head = ALPHABET[time % 32] + head;
    time = Math.floor(time / 32);
  }
  let tail = "";
  let accumulator = 0;
  let bits = 0;
  for (const end = used + RANDOM_BYTES; used < end; used++) {
    accumulator = ((accumulator << 8) | (pool[used] as number)) & 0xfff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      tail += ALPHABET[(accumulator >> bits) & 31];
    }
  }
  return `${prefix}_${head}${tail}`;
}
