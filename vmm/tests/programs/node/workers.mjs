// Threads that share memory: Atomics, messages, transfers, errors, ends.
import { once } from "node:events";
import {
  isMainThread,
  MessageChannel,
  parentPort,
  receiveMessageOnPort,
  threadId,
  Worker,
  workerData,
} from "node:worker_threads";

if (!isMainThread) {
  const { kind, shared, port } = workerData;
  const cells = shared && new Int32Array(shared);
  if (kind === "count") {
    for (let i = 0; i < 20_000; i++) Atomics.add(cells, 0, 1);
    Atomics.add(cells, 1, 1);
    Atomics.notify(cells, 1);
  } else if (kind === "pingpong") {
    for (let round = 0; round < 500; round++) {
      while (Atomics.load(cells, 2) !== 1) Atomics.wait(cells, 2, 0);
      Atomics.store(cells, 2, 0);
      Atomics.notify(cells, 2);
    }
  } else if (kind === "port") {
    port.on("message", (value) => {
      if (value === "end") port.close();
      else port.postMessage({ twice: value.n * 2, map: new Map([[value.n, new Date(0)]]) });
    });
  } else if (kind === "transfer") {
    parentPort.once("message", (buffer) => parentPort.postMessage(buffer.byteLength));
  } else if (kind === "throw") {
    throw new TypeError("thrown in a thread");
  } else if (kind === "exit") {
    process.exit(7);
  } else if (kind === "spin") {
    parentPort.postMessage("spinning");
    for (;;);
  } else if (kind === "memory") {
    const hoard = [];
    for (;;) hoard.push(new Array(10_000).fill(threadId));
  }
} else {
  const start = (kind, more = {}, options = {}) =>
    new Worker(new URL(import.meta.url), { workerData: { kind, ...more }, ...options });
  const shared = new SharedArrayBuffer(64);
  const cells = new Int32Array(shared);

  const counters = Array.from({ length: 8 }, () => start("count", { shared }));
  await Promise.all(counters.map((worker) => once(worker, "exit")));
  console.log("counted", cells[0], cells[1]);

  const partner = start("pingpong", { shared });
  for (let round = 0; round < 500; round++) {
    Atomics.store(cells, 2, 1);
    Atomics.notify(cells, 2);
    while (Atomics.load(cells, 2) !== 0) Atomics.wait(cells, 2, 1, 1000);
  }
  console.log("ping pong", await once(partner, "exit"));

  const { port1, port2 } = new MessageChannel();
  const porter = start("port", { port: port2 }, { transferList: [port2] });
  porter.on("error", (error) => console.log("port", error));
  await once(porter, "online");
  port1.postMessage({ n: 21 });
  console.log("port", (await once(port1, "message"))[0]);
  port1.postMessage("end");
  await once(porter, "exit");

  const transfer = start("transfer");
  const transferEnds = once(transfer, "exit");
  const buffer = new ArrayBuffer(1_000_000);
  transfer.postMessage(buffer, [buffer]);
  console.log("transferred", (await once(transfer, "message"))[0], buffer.byteLength);
  await transferEnds;

  const thrower = start("throw");
  const [error] = await new Promise((resolve) => thrower.once("error", (e) => resolve([e])));
  console.log("thrown", error.name, error.message);
  console.log("exit", await once(start("exit"), "exit"));

  const spinner = start("spin");
  await once(spinner, "message");
  console.log("terminated", await spinner.terminate());

  const hoarder = start("memory", {}, { resourceLimits: { maxOldGenerationSizeMb: 16 } });
  const [full] = await new Promise((resolve) => hoarder.once("error", (e) => resolve([e])));
  console.log("limit", full.code);

  console.log(
    "wait in the main thread",
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20),
  );
  const alive = setInterval(() => {}, 1000);
  console.log("waitAsync", await Atomics.waitAsync(cells, 3, 0, 20).value);
  clearInterval(alive);
  const channel = new MessageChannel();
  channel.port1.postMessage([1n, /x/g, new Set("ab")]);
  console.log("received at once", receiveMessageOnPort(channel.port2));
  channel.port1.close();
}
