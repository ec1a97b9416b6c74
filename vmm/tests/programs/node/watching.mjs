// watchFile polls and so works everywhere.
import { once } from "node:events";
import fs from "node:fs";

fs.writeFileSync("/tmp/watched", "1");
const watcher = fs.watchFile("/tmp/watched", { interval: 20 }, () => {});
const changed = once(watcher, "change");
// When the first look is taken is not told: so it changes until that is noticed.
const writing = setInterval(() => fs.appendFileSync("/tmp/watched", "more"), 5);
const [now, before] = await changed;
clearInterval(writing);
console.log("changed", now.size > before.size);
fs.unwatchFile("/tmp/watched");
