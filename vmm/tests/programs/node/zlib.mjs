// Compression in the thread pool and in streams.
import { createHash } from "node:crypto";
import { Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import zlib from "node:zlib";

const text = Buffer.from(Array.from({ length: 50_000 }, (_, i) => `line ${i * 7919}\n`).join(""));
const digest = (data) => createHash("sha256").update(data).digest("hex").slice(0, 12);

for (const [pack, unpack] of [
  ["gzip", "gunzip"],
  ["deflate", "inflate"],
  ["deflateRaw", "inflateRaw"],
  ["brotliCompress", "brotliDecompress"],
]) {
  const options = pack.startsWith("brotli")
    ? { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 5 } }
    : {};
  const packed = await promisify(zlib[pack])(text, options);
  const unpacked = await promisify(zlib[unpack])(packed);
  console.log(pack, packed.length, digest(packed), unpacked.equals(text));
  console.log(`${pack}Sync`, zlib[`${pack}Sync`](text, options).equals(packed));
}
const several = await Promise.all(
  Array.from({ length: 16 }, (_, i) => promisify(zlib.gzip)(text.subarray(i * 1000))),
);
console.log("at once", several.map((one) => one.length).join(" "));

const seen = createHash("sha256");
await pipeline(
  Readable.from(
    (function* () {
      for (let i = 0; i < text.length; i += 4096) yield text.subarray(i, i + 4096);
    })(),
  ),
  zlib.createGzip({ level: 9 }),
  zlib.createGunzip(),
  new Writable({
    write(chunk, _, done) {
      seen.update(chunk);
      done();
    },
  }),
);
console.log("streams", seen.digest("hex").slice(0, 12) === digest(text));
for (const broken of [Buffer.from("not compressed"), zlib.gzipSync(text).subarray(0, 100)]) {
  console.log("broken", await promisify(zlib.gunzip)(broken).catch((error) => error.code));
}
console.log(
  "limit",
  await promisify(zlib.gunzip)(zlib.gzipSync(text), { maxOutputLength: 100 }).catch(
    (error) => error.code,
  ),
);
console.log("crc32", zlib.crc32(text));
