import { z } from "zod";
import type { Path } from "#contracts/function";
import type { AssignedSandbox, ServingSandbox } from "../../worker/sandbox/index.ts";
import { Failure, messageOf } from "../failure.ts";
import { type HostFacts, hostFacts } from "../host/facts.ts";
import { firstAnswer } from "./first-answer.ts";
import { fromSnapshot } from "./from-snapshot.ts";
import { type Ground, HELLO, layGround } from "./ground.ts";
import {
  descriptorLimitOf,
  descriptorsOf,
  type Holdings,
  holdingsOf,
  leftBehind,
} from "./holdings.ts";
import { availableKib, privateKibOf, tasksFree } from "./host-memory.ts";

/** Sandboxes that are made, or ended, at the same time. */
const AT_ONCE = 4;
/** After so many it is worked out from what they took whether the rest will fit. */
const LOOK_AFTER = 16;
/** Memory that the machine keeps for itself, KiB. */
const RESERVE_KIB = 1 << 20;
/** Threads that a sandbox of Node 24 has on the host, with some to spare. */
const TASKS_EACH = 20;

export interface DensityReport {
  host: HostFacts;
  path: Path;
  /** How they were started: out of a snapshot, or booted. */
  start: "restored" | "cold";
  asked: number;
  /** How many were alive at once when all had been made. */
  live: number;
  answered: number;
  failures: number;
  /** Mean private memory of a sandbox's processes (Private_* of smaps_rollup). */
  private_kib_each: number | null;
  /** What the machine had less of, kernel memory included, for each. */
  host_kib_each: number | null;
  /** What was still there after the last had been ended. */
  left: string[];
  firstFailure?: string;
}

export interface DensityOptions {
  path: Path;
  count: number;
  signal: AbortSignal;
  onProgress(text: string): void;
}

const listSchema = z.object({
  sandboxes: z.array(
    z.object({ sandbox: z.string(), pid: z.number().int().nonnegative(), state: z.string() }),
  ),
  more: z.boolean(),
});

/** So many sandboxes of examples/hello alive at once, each of which has answered. Throws a Failure where the machine cannot hold them. */
export async function benchDensity(options: DensityOptions): Promise<DensityReport> {
  const { path, count } = options;
  requireTasks(count);
  const ground = await layGround(HELLO.node24);
  const live: ServingSandbox[] = [];
  try {
    const { launch, start } = await launcherFor(ground, path);
    // What is made once is no sandbox's own: pages of the image, code, sandboxd's own memory. What a first answer touches is learned from the
    // first two of a snapshot, with page tables of their own kind: they live until another has answered.
    for (let one = 0; one < 3; one++) live.push(await firstAnswer(await launch(), ground));
    await endAll(live);
    await endReady(ground);
    const before = holdingsOf(ground);
    const availableBefore = availableKib();
    const failures: string[] = [];
    let stopped: Failure | undefined;
    await inParallel(count, async () => {
      if (options.signal.aborted || stopped) return;
      try {
        live.push(await firstAnswer(await launch(), ground));
      } catch (error) {
        failures.push(messageOf(error));
      }
      const made = live.length;
      if (made === LOOK_AFTER)
        stopped = tooMany(options, availableBefore, made) ?? tooManyFiles(ground, before, count);
      // What others take meanwhile is nobody's to foresee.
      else if (made % 25 === 0 && availableKib() < RESERVE_KIB)
        stopped = tooMany({ ...options, count: Number.POSITIVE_INFINITY }, availableBefore, made);
      if (made % 25 === 0) options.onProgress(`${made} of ${count} live`);
    });
    if (stopped) throw stopped;
    const alive = live.filter((one) => one.alive);
    options.onProgress(`${alive.length} of ${count} live, looking at their memory`);
    const taken = availableBefore - availableKib();
    const pids = await pidsOf(ground);
    let privateKib = 0;
    for (const { id } of alive) {
      const pid = pids.get(id);
      if (pid !== undefined) privateKib += privateKibOf(pid);
    }
    const answered = live.length;
    options.onProgress(`ending ${answered}`);
    await endAll(live);
    await endReady(ground);
    const left = await leftBehind(ground, before);
    const each = (kib: number): number | null =>
      alive.length > 0 ? Math.round(kib / alive.length) : null;
    return {
      host: hostFacts(),
      path,
      start,
      asked: count,
      live: alive.filter(({ id }) => pids.has(id)).length,
      answered,
      failures: failures.length + (answered - alive.length),
      private_kib_each: each(privateKib),
      host_kib_each: each(taken),
      left,
      ...(failures[0] === undefined ? {} : { firstFailure: failures[0] }),
    };
  } finally {
    await endAll(live);
    await ground.close();
  }
}

async function launcherFor(
  ground: Ground,
  kind: Path,
): Promise<{ launch(): Promise<AssignedSandbox>; start: DensityReport["start"] }> {
  const shape = { ...ground.shape, kind };
  if (kind === "container")
    return {
      launch: () => ground.launcher.launch(shape, "bench", ground.bundle, ground.spec),
      start: "cold",
    };
  const snapshot = fromSnapshot(ground, "function");
  try {
    await snapshot.ready();
  } catch (error) {
    throw new Failure(
      `There is no snapshot of the function: ${messageOf(error)}.`,
      "Run ./cloister doctor, which says whether micro-VMs run here.",
    );
  }
  return { launch: () => snapshot.launch(), start: "restored" };
}

/** Runs `once` so many times, a few at a time. */
async function inParallel(count: number, once: () => Promise<void>): Promise<void> {
  let begun = 0;
  const work = async (): Promise<void> => {
    while (begun < count) {
      begun++;
      await once();
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, work));
}

async function endAll(live: ServingSandbox[]): Promise<void> {
  const ending = live.splice(0);
  await inParallel(ending.length, async () => {
    await ending
      .pop()
      ?.end()
      .catch(() => {});
  });
}

function requireTasks(count: number): void {
  const most = Math.floor(tasksFree() / TASKS_EACH);
  if (count <= most) return;
  throw new Failure(
    `This machine has room for the threads of ${most} sandboxes, not of ${count}.`,
    "Raise kernel.pid_max and kernel.threads-max with sysctl, or ask for fewer.",
  );
}

/** Why the rest will not fit beside those that have been made; undefined where it will. */
function tooMany(
  { count }: DensityOptions,
  availableBefore: number,
  made: number,
): Failure | undefined {
  const each = Math.max(0, availableBefore - availableKib()) / made;
  const most = Math.floor((availableBefore - RESERVE_KIB) / Math.max(each, 1));
  if (count <= most) return undefined;
  return new Failure(
    `This machine has memory for about ${most} such sandboxes, not for as many: each takes ${Math.round(each)} KiB.`,
    "Ask for fewer, or end what else takes memory.",
  );
}

/** The same for what sandboxd has open. */
function tooManyFiles({ sandboxd }: Ground, before: Holdings, count: number): Failure | undefined {
  const each = (descriptorsOf(sandboxd.pid) - before.descriptors) / LOOK_AFTER;
  const most = Math.floor(
    (descriptorLimitOf(sandboxd.pid) - before.descriptors) / Math.max(each, 1),
  );
  if (count <= most) return undefined;
  return new Failure(
    `sandboxd may have the files of about ${most} sandboxes open, not of ${count}.`,
    "Raise the hard limit of open files (ulimit -Hn), or ask for fewer.",
  );
}

/** What sandboxd keeps ready for the next start is nothing that was left behind. */
async function endReady(ground: Ground): Promise<void> {
  for (const { sandbox, state } of await listed(ground))
    if (state === "ready" || state === "creating")
      await ground.launcher.request({ op: "kill", sandbox }).catch(() => {});
}

/** The first process of each sandbox. */
async function pidsOf(ground: Ground): Promise<Map<string, number>> {
  const all = await listed(ground);
  return new Map(all.filter(({ pid }) => pid > 0).map(({ sandbox, pid }) => [sandbox, pid]));
}

async function listed(ground: Ground): Promise<z.infer<typeof listSchema>["sandboxes"]> {
  const all: z.infer<typeof listSchema>["sandboxes"] = [];
  for (;;) {
    const after = all.at(-1)?.sandbox;
    const asked = { op: "list", ...(after === undefined ? {} : { after }) };
    const { sandboxes, more } = listSchema.parse(await ground.launcher.request(asked));
    all.push(...sandboxes);
    if (!more || sandboxes.length === 0) return all;
  }
}
