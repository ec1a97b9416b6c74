// The process itself: what it knows, signals to itself, the ways errors come out.

import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";

console.log(
  process.platform,
  process.arch,
  process.argv.length,
  process.execPath,
  process.title.length > 0,
);
console.log(
  process.cwd(),
  process.env.HOME,
  process.env.NOTHING,
  process.umask().toString(8),
  process.getuid(),
  process.getgid(),
);
process.chdir("/usr");
console.log(process.cwd(), process.pid > 0, process.exitCode, process.execArgv.length);
console.log(
  os.EOL === "\n",
  os.endianness(),
  os.homedir(),
  os.tmpdir(),
  os.type(),
  os.totalmem() > 1e8,
  os.freemem() > 0,
  os.cpus().length > 0,
);
console.log(
  os.userInfo().username,
  os.loadavg().length,
  os.uptime() > 0,
  os.availableParallelism() > 0,
  os.hostname().length > 0,
);
console.log(os.machine(), os.constants.signals.SIGTERM);
// A signal that is waited for does not keep a program alive.
const alive = setInterval(() => {}, 1000);
for (const signal of ["SIGUSR2", "SIGTERM", "SIGHUP", "SIGINT", "SIGWINCH"]) {
  const came = once(process, signal);
  process.kill(process.pid, signal);
  console.log("signal", ...(await came));
}
clearInterval(alive);
console.log("alive", process.kill(process.pid, 0));
try {
  process.kill(999_999, 0);
} catch (error) {
  console.log("no such process", error.code);
}
process.title = "renamed";
console.log("title", process.title);
console.log(
  "report",
  typeof process.report.getReport().header.nodejsVersion,
  process.features.inspector,
);
console.log(
  "active",
  process.getActiveResourcesInfo().length >= 0,
  process.constrainedMemory() >= 0,
  process.availableMemory() > 0,
);
process.on("warning", (warning) => console.log("warning", warning.message));
process.emitWarning("a warning of its own");
await new Promise(setImmediate);
const unhandled = once(process, "unhandledRejection");
Promise.reject(new Error("rejected"));
console.log("unhandled", (await unhandled)[0].message);
const uncaught = new Promise((resolve) =>
  process.once("uncaughtException", (error, origin) => resolve([error.message, origin])),
);
setImmediate(() => {
  throw new Error("thrown");
});
console.log("uncaught", await uncaught);
process.stdout.write("written directly\n");
fs.writeSync(1, "written by descriptor\n");
console.log("terminal", process.stdout.isTTY, process.stdin.isTTY);
let input = 0;
for await (const chunk of process.stdin) input += chunk.length;
console.log("input", input);
process.on("beforeExit", () => console.log("before the end"));
process.on("exit", (code) => console.log("end", code));
process.exitCode = 5;
