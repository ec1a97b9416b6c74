// Timers, their order, and the clocks they go by.
import { monitorEventLoopDelay, PerformanceObserver, performance } from "node:perf_hooks";
import {
  setInterval as every,
  setImmediate as immediate,
  scheduler,
  setTimeout as sleep,
} from "node:timers/promises";

const order = [];
await new Promise((resolve) => {
  setTimeout(() => {
    order.push("timeout");
    setImmediate(() => {
      order.push("immediate");
      resolve();
    });
  }, 5);
  process.nextTick(() => order.push("tick"));
  queueMicrotask(() => order.push("microtask"));
  Promise.resolve().then(() => order.push("promise"));
});
console.log(order);
const start = performance.now();
const wall = Date.now();
const exact = process.hrtime.bigint();
await sleep(50);
console.log(
  "not too early",
  performance.now() - start >= 49,
  Date.now() - wall >= 49,
  process.hrtime.bigint() - exact >= 49_000_000n,
);
const ended = await Promise.all(
  Array.from({ length: 500 }, (_, i) => sleep(500 - i > 450 ? 1 : i % 40, i)),
);
console.log(
  "many",
  ended.reduce((a, b) => a + b, 0),
);
let ticks = 0;
for await (const _ of every(2)) if (++ticks === 20) break;
console.log("ticks", ticks);
await immediate();
await scheduler.wait(1);
console.log(
  "cancelled",
  await sleep(100_000, 0, { signal: AbortSignal.timeout(10) }).catch((error) => [
    error.name,
    error.cause.name,
  ]),
);
const refreshed = setTimeout(() => {}, 100_000);
console.log(
  "references",
  refreshed.hasRef(),
  refreshed.unref().hasRef(),
  refreshed.refresh() === refreshed,
);
const cleared = setInterval(() => console.log("never"), 1);
clearInterval(cleared);

performance.mark("a");
await sleep(10);
performance.mark("b");
const measured = performance.measure("a to b", "a", "b");
console.log("measured", measured.name, measured.duration >= 9);
const observed = new Promise((resolve) =>
  new PerformanceObserver((list) => resolve(list.getEntries().map((one) => one.name))).observe({
    entryTypes: ["measure"],
  }),
);
performance.measure("second", "a");
console.log("observed", await observed);
const timed = performance.timerify(function work() {
  let sum = 0;
  for (let i = 0; i < 1000; i++) sum += i;
  return sum;
});
console.log("timed", timed());
const delay = monitorEventLoopDelay({ resolution: 1 });
delay.enable();
await sleep(30);
delay.disable();
console.log("delay", delay.count > 0, delay.max >= delay.min);
console.log("utilisation", performance.eventLoopUtilization().utilization >= 0);
console.log("origin", Math.abs(performance.timeOrigin + performance.now() - Date.now()) < 1000);
const year = new Date().getUTCFullYear();
console.log("year", year >= 2024 && year < 2100);
console.log("cpu", process.cpuUsage().user > 0, process.uptime() > 0.05, process.hrtime().length);
