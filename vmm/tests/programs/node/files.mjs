// The file system by promises, callbacks and at once.

import { once } from "node:events";
import fs, { promises as fsp } from "node:fs";
import path from "node:path";

process.chdir("/tmp");
const code = async (name, run) =>
  console.log(
    name,
    await Promise.resolve()
      .then(run)
      .then(
        (v) => v ?? "ok",
        (e) => e.code,
      ),
  );
await fsp.mkdir("a/b/c", { recursive: true });
await fsp.writeFile("a/one", "one");
await fsp.appendFile("a/one", " and more");
console.log(await fsp.readFile("a/one", "utf8"));
await fsp.symlink("one", "a/link");
await fsp.link("a/one", "a/b/hard");
console.log(
  await fsp.readlink("a/link"),
  await fsp.realpath("a/link"),
  (await fsp.stat("a/one")).nlink,
);
const kinds = (entry) =>
  `${entry.name}${entry.isDirectory() ? "/" : entry.isSymbolicLink() ? "@" : ""}`;
console.log((await fsp.readdir("a", { withFileTypes: true })).map(kinds).sort());
console.log((await fsp.readdir("a", { recursive: true })).sort());
const opened = [];
for await (const entry of await fsp.opendir("a", { bufferSize: 1 })) opened.push(kinds(entry));
console.log(opened.sort());
await fsp.rename("a/b", "a/renamed");
await code("exists", () => fsp.access("a/b"));
await code("exclusive", () => fsp.writeFile("a/one", "", { flag: "wx" }));
await code("a folder", () => fsp.readFile("a"));
await code("not a folder", () => fsp.readdir("a/one"));
await code("not empty", () => fsp.rmdir("a"));
await code("read-only root", () => fsp.writeFile("/etc/new", ""));
await code("read-only bundle", () => fsp.writeFile("/fn/new", ""));
await code("loop", async () => {
  await fsp.symlink("loop", "loop");
  await fsp.readFile("loop");
});
await code("too long", () => fsp.readFile("x".repeat(300)));
await code("a zero", () => fsp.readFile("a\0b"));
await code("copy", () => fsp.copyFile("a/one", "copy"));
await code("copy exclusively", () => fsp.copyFile("a/one", "copy", fs.constants.COPYFILE_EXCL));
await fsp.cp("a", "tree", { recursive: true });
console.log((await fsp.readdir("tree", { recursive: true })).sort());
await fsp.chmod("copy", 0o640);
await fsp.utimes("copy", 1000, 2000.5);
const stat = await fsp.stat("copy", { bigint: true });
console.log(stat.mode.toString(8), stat.size, stat.mtimeNs, stat.atimeMs, stat.isFile());
await fsp.truncate("copy", 5);
console.log(JSON.stringify(fs.readFileSync("copy", "utf8")));

const handle = await fsp.open("large", "w+");
await handle.write(Buffer.from("end"), 0, 3, 20_000_000);
console.log(
  "sparse",
  (await handle.stat()).size,
  (await handle.read(Buffer.alloc(4), 0, 4, 10_000_000)).buffer,
);
const chunk = Buffer.alloc(1 << 20, "z");
for (let i = 0; i < 20; i++)
  await handle.writev([chunk.subarray(0, 1000), chunk.subarray(1000)], i << 20);
await handle.sync();
console.log(
  "large",
  (await handle.stat()).size,
  (await handle.readv([Buffer.alloc(10), Buffer.alloc(10)], 100)).bytesRead,
);
await handle.close();
await code("closed", () => handle.stat());
console.log("lines", (await Array.fromAsync((await fsp.open("a/one")).readLines())).length);
console.log("whole", fs.readFileSync("large").length);
await fsp.rm("large");
console.log("made", path.basename(await fsp.mkdtemp("made-")).length);
await Promise.all(
  Array.from({ length: 200 }, (_, i) => fsp.writeFile(`many-${i}`, String(i).repeat(i))),
);
const sizes = await Promise.all(
  Array.from({ length: 200 }, async (_, i) => (await fsp.stat(`many-${i}`)).size),
);
console.log(
  "many",
  sizes.reduce((a, b) => a + b, 0),
);
await fsp.rm("a", { recursive: true });
console.log("removed", fs.existsSync("a"), fs.statSync("a", { throwIfNoEntry: false }));
const fd = fs.openSync("positions", "a+");
fs.writeSync(fd, "0123456789");
console.log("at", fs.readSync(fd, Buffer.alloc(3), 0, 3, 4), fs.fstatSync(fd).size);
fs.ftruncateSync(fd, 4);
fs.futimesSync(fd, 1, 1);
fs.closeSync(fd);
await code("bad descriptor", () => fs.fstatSync(9999));
console.log(
  "folders",
  fs.statSync("/fn").isDirectory(),
  fs.statSync("/dev/null").isCharacterDevice(),
);
await fsp.writeFile("/dev/null", "lost");
const watched = fs.createReadStream("/dev/zero", { end: 99_999 });
let zeros = 0;
watched.on("data", (data) => {
  zeros += data.length;
});
await once(watched, "close");
console.log("zeros", zeros);
console.log("statfs", typeof (await fsp.statfs("/tmp")).bsize);
