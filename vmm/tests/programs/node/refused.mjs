// Programs cannot be started: each way of trying says so by an error that a program can handle.
import child_process from "node:child_process";
import cluster from "node:cluster";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import { promisify } from "node:util";

const caught = async (name, run) =>
  console.log(
    name,
    await Promise.resolve()
      .then(run)
      .then(
        () => "started",
        (error) => error.code,
      ),
  );
await caught("spawn", async () => {
  const [error] = await once(child_process.spawn("/usr/bin/node", ["-e", "0"]), "error").catch(
    (e) => [e],
  );
  throw error;
});
await caught("exec", () => promisify(child_process.exec)("true"));
await caught("execFile", () => promisify(child_process.execFile)("/usr/bin/node", ["-v"]));
await caught("spawnSync", () => {
  throw child_process.spawnSync("/usr/bin/node", ["-v"]).error;
});
await caught("execSync", () => child_process.execSync("true"));
await caught("fork", async () => {
  const child = child_process.fork("/fn/modules.mjs");
  throw (await once(child, "error").catch((e) => [e]))[0];
});
await caught("cluster", async () => {
  throw (await once(cluster.fork(), "error").catch((e) => [e]))[0];
});
// What containers do not have either.
await caught("interfaces", () => os.networkInterfaces());
await caught("watch", () => fs.watch("/tmp"));
console.log("still here");
