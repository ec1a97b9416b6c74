// What the engine itself offers: Intl, URL, vm, structured clones, text, async contexts, arguments.
import assert from "node:assert/strict";
import { AsyncLocalStorage, AsyncResource } from "node:async_hooks";
import { Buffer } from "node:buffer";
import diagnostics from "node:diagnostics_channel";
import { EventEmitter, on } from "node:events";
import querystring from "node:querystring";
import readline from "node:readline";
import { PassThrough } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { inspect, parseArgs, styleText, types } from "node:util";
import v8 from "node:v8";
import vm from "node:vm";

console.log(
  new Intl.NumberFormat("de-DE", { style: "currency", currency: "EUR" }).format(1234567.891),
);
console.log(
  new Intl.DateTimeFormat("ja-JP", {
    dateStyle: "full",
    timeStyle: "long",
    timeZone: "Asia/Tokyo",
  }).format(new Date(0)),
);
console.log(
  ["ä", "z", "a"].sort(new Intl.Collator("sv").compare),
  new Intl.PluralRules("ar").select(3),
);
console.log(
  new Intl.RelativeTimeFormat("fr").format(-3, "month"),
  new Intl.ListFormat("en").format(["a", "b", "c"]),
);
console.log(
  [...new Intl.Segmenter("th", { granularity: "word" }).segment("สวัสดีครับ")].length,
  "ǆ".toLocaleUpperCase("hr"),
);
console.log(
  new Date(1e12).toString(),
  new Date(2024, 6, 1).getTimezoneOffset(),
  "é".normalize("NFD").length,
);
const url = new URL("http://user:pass@EXAMPLE.com:80/a/../b?x=1&y=%20#z");
console.log(
  url.href,
  url.searchParams.get("y"),
  new URL("http://münchen.de").host,
  URL.canParse("nope"),
);
console.log(
  querystring.stringify({ a: ["b", "c"], d: "é" }),
  new URLSearchParams({ q: "a b&c" }).toString(),
);
const clone = structuredClone({
  date: new Date(0),
  map: new Map([[1, new Set([2])]]),
  cycle: null,
  big: 2n ** 70n,
  error: new RangeError("r"),
});
console.log(clone.date.getTime(), clone.map.get(1).has(2), clone.big, clone.error.name);
assert.throws(() => structuredClone(() => {}), { name: "DataCloneError" });
console.log(
  inspect(new Proxy({ a: { b: { c: { d: 1 } } } }, {}), { depth: 1 }),
  types.isProxy(new Proxy({}, {})),
);
const context = vm.createContext({ n: 20 });
console.log(vm.runInContext("n * 2 + [1, 2].length", context), context.constructor === Object);
try {
  vm.runInNewContext("for (;;);", {}, { timeout: 30 });
} catch (error) {
  console.log(error.code);
}
console.log(
  new vm.Script("a => a").runInThisContext()(5),
  // biome-ignore lint/security/noGlobalEval: code made at run time is what is tried.
  eval("1 + 1"),
  new Function("x", "return x * 2")(4),
);
console.log(
  v8.deserialize(v8.serialize({ a: [1, new Date(5)] })),
  v8.getHeapStatistics().heap_size_limit > 1e7,
);
for (const label of ["utf-8", "utf-16le", "shift_jis", "windows-1252", "gb18030"]) {
  console.log(
    label,
    JSON.stringify(new TextDecoder(label).decode(Uint8Array.of(0x82, 0xa0, 0x41, 0xe9))),
  );
}
assert.throws(
  () => new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.of(0xff)),
  TypeError,
);
console.log(
  Buffer.from("zażółć 💡").toString("base64url"),
  Buffer.from("ff00", "hex"),
  Buffer.byteLength("💡"),
);
const numbers = Buffer.alloc(16);
numbers.writeDoubleBE(Math.PI);
numbers.writeBigUInt64LE(2n ** 63n, 8);
console.log(
  numbers.toString("hex"),
  numbers.readFloatLE(4),
  Buffer.compare(Buffer.from("a"), Buffer.from("b")),
);
console.log(
  await new Blob(["a", new Uint8Array([98])]).text(),
  atob(btoa("x")),
  new File(["abc"], "n.txt").size,
);

const store = new AsyncLocalStorage();
const seen = await Promise.all(
  [1, 2, 3].map((id) =>
    store.run(id, async () => {
      await sleep(id);
      await null;
      return new Promise((resolve) => setImmediate(() => resolve(store.getStore())));
    }),
  ),
);
console.log(
  seen,
  store.getStore(),
  store.run(9, () => AsyncResource.bind(() => store.getStore()))(),
);
const channel = diagnostics.channel("programs");
channel.subscribe((message) => console.log("diagnosed", message));
channel.publish({ a: 1 });
const emitter = new EventEmitter({ captureRejections: true });
setImmediate(() => {
  emitter.emit("v", 1);
  emitter.emit("v", 2);
});
for await (const [value] of on(emitter, "v")) if (value === 2) break;
console.log(
  parseArgs({
    args: ["-v", "--name=x", "rest"],
    options: { v: { type: "boolean", short: "v" }, name: { type: "string" } },
    allowPositionals: true,
  }).values,
);
const input = new PassThrough();
input.end("first\nsecond\r\nthird");
const lines = [];
for await (const line of readline.createInterface({ input })) lines.push(line);
console.log(lines, JSON.stringify(styleText("red", "x", { validateStream: false })));
console.log(
  Object.groupBy([1, 2, 3], (n) => (n % 2 ? "odd" : "even")),
  [3, 1, 2].toSorted(),
  "x".isWellFormed(),
);
console.log(
  0.1 + 0.2,
  Math.fround(1.1),
  Math.hypot(3, 4),
  (123.456).toExponential(2),
  2n ** 100n,
  Math.expm1(1e-10),
);
console.log(
  /(?<year>\d{4})-\p{Lu}/u.exec("in 2024-É")?.groups.year,
  "aXbX".replaceAll("X", "-"),
  "ab".padStart(5, "*"),
);
let collected = 0;
const registry = new FinalizationRegistry(() => collected++);
for (let i = 0; i < 10; i++) registry.register({ i }, i);
console.log(
  new WeakRef(registry).deref() === registry,
  Reflect.ownKeys({ b: 1, a: 2, [Symbol.iterator]: 3 }).length,
);
