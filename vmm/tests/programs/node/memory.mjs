// Large and many allocations, deep recursion, garbage.
import v8 from "node:v8";

const deep = () => deep() + 1;
try {
  deep();
} catch (error) {
  console.log(error.name, error.message);
}
try {
  JSON.parse(`${"[".repeat(100_000)}${"]".repeat(100_000)}`);
  console.log("parsed");
} catch (error) {
  console.log(error.name);
}
const large = new Float64Array(16 << 20).fill(1.5);
console.log(
  "large",
  large.length,
  large.reduce((sum, n) => sum + n, 0),
);
try {
  new ArrayBuffer(2 ** 53);
} catch (error) {
  console.log(error.name, error.message);
}
try {
  "x".repeat(2 ** 30);
} catch (error) {
  console.log(error.name, error.message);
}
const growing = new ArrayBuffer(1000, { maxByteLength: 64 << 20 });
growing.resize(32 << 20);
new Uint8Array(growing).fill(7);
console.log("resized", growing.byteLength, new Uint8Array(growing).at(-1));
const moved = growing.transfer(5);
console.log("moved", moved.byteLength, growing.detached);

let total = 0;
for (let round = 0; round < 60; round++) {
  const objects = Array.from({ length: 20_000 }, (_, i) => ({
    i,
    text: `text ${i}`,
    list: [i, i + 1],
  }));
  total += objects[round].list[1];
}
console.log("garbage", total);
let buffers = 0;
for (let i = 0; i < 300; i++) buffers += Buffer.alloc(1 << 20, i).at(-1);
console.log("buffers", buffers);
const map = new Map();
for (let i = 0; i < 300_000; i++) map.set(`key ${i}`, i);
for (let i = 0; i < 300_000; i += 2) map.delete(`key ${i}`);
console.log("map", map.size);
const big = Array.from({ length: 2_000_000 }, (_, i) => (i * 7919) % 1_000_003);
console.log("sorted", big.sort((a, b) => a - b)[1_000_000]);
console.log("typed", new Int32Array(big).toSorted().at(-1));
const text = Array.from({ length: 200_000 }, (_, i) => i).join(",");
console.log("string", text.length, text.split(",").length, JSON.stringify(big).length);
const words = {};
for (let i = 0; i < 100_000; i++) words[`w${i % 5000}`] = (words[`w${i % 5000}`] ?? 0) + 1;
console.log("words", Object.keys(words).length, words.w42);
v8.setFlagsFromString("--expose-gc");
const gc = (await import("node:vm")).runInNewContext("gc");
for (let i = 0; i < 5; i++) gc();
const usage = process.memoryUsage();
console.log(
  "usage",
  usage.rss > 1e6,
  usage.heapUsed < usage.heapTotal,
  process.resourceUsage().maxRSS > 1000,
);
console.log(
  "jit",
  (() => {
    let h = 0;
    for (let i = 0; i < 20_000_000; i++) h = (Math.imul(h, 31) + i) | 0;
    return h;
  })(),
);
