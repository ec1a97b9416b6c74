import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { ProcessorWait, type Scheduling, schedulingOf } from "./processor-wait.ts";

/** A wait whose thread has run and waited so long, ms, each time it is asked. */
function waitOf(...readings: [ranMs: number, waitedMs: number][]): ProcessorWait {
  const left = readings.map(([ranMs, waitedMs]): Scheduling => ({ ranMs, waitedMs }));
  return new ProcessorWait(() => {
    const next = left.shift();
    assert.ok(next, "it was read more often than need be");
    return next;
  });
}

test("the kernel's file, and what is none", () => {
  assert.deepEqual(schedulingOf("4459270432 5248920792 8457\n"), {
    ranMs: 4459.270432,
    waitedMs: 5248.920792,
  });
  for (const text of [undefined, "", "1 \n", "1 -2 3\n", "x 2 3\n"])
    assert.equal(schedulingOf(text), undefined);
});

test("a call by itself, with the reading before it and the one after", () => {
  const wait = waitOf([100, 50], [101, 52]);
  wait.begins(1000, true);
  // 4 ms long: 1 ran, 2 waited, 1 slept.
  assert.equal(wait.ends(1004, 1), 0.5);
});

test("short calls behind each other are looked at together, and each knows the share of those before", () => {
  const wait = waitOf([0, 0], [1, 1], [4, 7]);
  wait.begins(0, true);
  assert.equal(wait.ends(4, 1), 0.25);
  for (let n = 1; n <= 3; n++) {
    wait.begins(n * 10, true);
    const share = wait.ends(n * 10 + 4, 1);
    // 12 ms, of which 6 were waited.
    assert.equal(share, n < 3 ? 0.25 : 0.5);
  }
});

test("what a sandbox does while nobody calls it is no call's", () => {
  const wait = waitOf([0, 0], [1, 0], [500, 400], [502, 401]);
  wait.begins(0, true);
  assert.equal(wait.ends(4, 1), 0);
  wait.begins(60_000, true);
  assert.equal(wait.ends(60_004, 2), 0.25);
  const reset = waitOf([0, 0], [1, 0], [3, 9], [4, 11]);
  reset.begins(0, true);
  reset.ends(4, 1);
  reset.rest();
  reset.begins(5, true);
  assert.equal(reset.ends(9, 1), 0.5);
});

test("calls at once share the time, and a long one is whole", () => {
  const wait = waitOf([0, 0], [5, 5], [10, 45]);
  wait.begins(0, true);
  wait.begins(5, false);
  // One of 5 ms within another: 5 of 10.
  assert.equal(wait.ends(10, 5), 0.5);
  // The other one's rest, from 10 to 90: 40 of 80.
  assert.equal(wait.ends(90, 5), 0.5);
});

test("what other threads and children ran waited as much for each ms, and no more than all was waited", () => {
  const wait = waitOf([0, 0], [1, 1], [2, 2]);
  wait.begins(0, true);
  // The group ran 10 ms, of which the first thread ran 1 and waited 1.
  assert.equal(wait.ends(40, 10), 0.25);
  wait.begins(41, true);
  assert.equal(wait.ends(61, 60), 1);
});

test("unknown stays unknown", () => {
  const none = new ProcessorWait(() => undefined);
  none.begins(0, true);
  assert.equal(none.ends(1000, 1), undefined);
  // The file appears while the call runs: what it waited before is not known.
  const readings: (Scheduling | undefined)[] = [undefined, { ranMs: 7, waitedMs: 3 }];
  const late = new ProcessorWait(() => readings.shift());
  late.begins(0, true);
  assert.equal(late.ends(1000, 1), undefined);
});

const children: ChildProcess[] = [];
after(() => {
  for (const child of children) child.kill("SIGKILL");
});

test("the kernel tells apart who waits for a processor and who sleeps", async () => {
  // Two that want the same processor, and one that wants none.
  const start = (script: string): ChildProcess => {
    const child = spawn("taskset", ["-c", "0", "sh", "-c", script], { stdio: "ignore" });
    children.push(child);
    return child;
  };
  const busy = [start("while :; do :; done"), start("while :; do :; done")];
  const sleeps = start("exec sleep 600");
  const waits = [busy[0] as ChildProcess, sleeps].map(
    ({ pid }) =>
      new ProcessorWait(() => schedulingOf(readFileSync(`/proc/${pid}/schedstat`, "latin1"))),
  );
  /** Shares of a call that lasts until the busy one has run for 50 ms more. */
  const shares = async (): Promise<(number | undefined)[]> => {
    const ran = (): number =>
      schedulingOf(readFileSync(`/proc/${busy[0]?.pid}/schedstat`, "latin1"))?.ranMs ?? 0;
    const fromMs = performance.now();
    const ranMs = ran();
    for (const wait of waits) wait.begins(fromMs, true);
    while (ran() < ranMs + 50) await new Promise((resolve) => setTimeout(resolve, 5));
    return waits.map((wait) => wait.ends(performance.now(), undefined));
  };
  // Their programs start during the first.
  await shares();
  const [waited, slept] = await shares();
  assert.ok(waited !== undefined && waited > 0.2, `${waited}`);
  assert.equal(slept, 0);
});
