import { randomBytes } from "node:crypto";

const ALPHABET = "0123456789abcdefghijklmnopqrstuv";

/** `prefix_` and 26 base-32 characters: 48 bits of time (ms), then 80 random bits, so ids sort by time. */
export function newId(prefix: "inv" | "ten" | "key" | "fn" | "ver" | "node"): string {
  const bytes = randomBytes(10);
  let time = Date.now();
  let head = "";
  for (let i = 0; i < 10; i++) {
    head = ALPHABET[time % 32] + head;
    time = Math.floor(time / 32);
  }
  let tail = "";
  let accumulator = 0;
  let bits = 0;
  for (const byte of bytes) {
    accumulator = ((accumulator << 8) | byte) & 0xfff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      tail += ALPHABET[(accumulator >> bits) & 31];
    }
  }
  return `${prefix}_${head}${tail}`;
}
