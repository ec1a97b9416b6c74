// Streams of both kinds: pipelines, transforms, back pressure, errors, ends.
import { createReadStream, createWriteStream, statSync } from "node:fs";
import { Duplex, finished, PassThrough, Readable, Transform, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";

const numbers = () => Readable.from(Array.from({ length: 1000 }, (_, i) => i));
console.log(
  "operators",
  await numbers()
    .filter((n) => n % 2)
    .map((n) => n * 2)
    .drop(10)
    .take(5)
    .toArray(),
);
console.log("reduced", await numbers().reduce((sum, n) => sum + n, 0));
console.log(
  "concurrent",
  (
    await numbers()
      .map(async (n) => n + 1, { concurrency: 16 })
      .toArray()
  ).length,
);

const lines = Array.from({ length: 100_000 }, (_, i) => `line ${i}`).join("\n");
await pipeline(Readable.from([lines]), createWriteStream("/tmp/lines"));
console.log("written", statSync("/tmp/lines").size === lines.length);
let upper = 0;
await pipeline(
  createReadStream("/tmp/lines", { highWaterMark: 1000 }),
  new Transform({
    transform(chunk, _, done) {
      done(null, chunk.toString().toUpperCase());
    },
  }),
  new Writable({
    highWaterMark: 10,
    write(chunk, _, done) {
      upper += chunk.toString().match(/LINE/g)?.length ?? 0;
      setImmediate(done);
    },
  }),
);
console.log("transformed", upper > 95_000);
const part = await createReadStream("/tmp/lines", {
  start: 5,
  end: 20,
  encoding: "utf8",
}).toArray();
console.log("part", JSON.stringify(part.join("")));
console.log(
  "missing",
  await pipeline(createReadStream("/tmp/none"), new PassThrough()).catch((error) => error.code),
);
const stop = new AbortController();
const stopped = pipeline(
  numbers(),
  new Writable({
    objectMode: true,
    write() {
      stop.abort();
    },
  }),
  { signal: stop.signal },
);
console.log("aborted", await stopped.catch((error) => error.name));
const failing = new Readable({
  read() {
    this.destroy(new Error("broken"));
  },
});
console.log("broken", await promisify(finished)(failing.resume()).catch((error) => error.message));

const web = new ReadableStream({
  start(c) {
    for (let i = 0; i < 5; i++) c.enqueue(i);
    c.close();
  },
});
const [left, right] = web.tee();
const collected = [];
for await (const value of left) collected.push(value);
console.log(
  "web",
  collected,
  (await Readable.fromWeb(right, { objectMode: true }).toArray()).length,
);
const encoded = new Response("héllo").body
  .pipeThrough(new TextDecoderStream())
  .pipeThrough(new TransformStream({ transform: (t, c) => c.enqueue(t.length) }));
for await (const size of encoded) console.log("piped", size);
const compressed = new Blob([lines])
  .stream()
  .pipeThrough(new CompressionStream("gzip"))
  .pipeThrough(new DecompressionStream("gzip"));
console.log("compressed", (await new Response(compressed).text()).length === lines.length);
const duplex = Duplex.from(async function* (source) {
  for await (const chunk of source) yield String(chunk).split("").reverse().join("");
});
duplex.end("olleh");
console.log("duplex", (await duplex.toArray()).join(""));
