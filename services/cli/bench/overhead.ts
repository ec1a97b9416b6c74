import { existsSync } from "node:fs";
import { cpus } from "node:os";
import { z } from "zod";
import { distribution, type Interval, ratioInterval } from "#report/statistics";
import { type ServingSandbox, wholeAnswer } from "../../worker/sandbox/index.ts";
import { type HostFacts, hostFacts } from "../host/facts.ts";
import { type Ground, layGround, type Measured } from "./ground.ts";
import { processLauncher } from "./own-modes.ts";
import { type Mode, type Outcome, type Rounds, runRounds, WARM_UP_ROUNDS } from "./rounds.ts";

const PATHS = ["process", "container", "microvm"] as const;
type Path = (typeof PATHS)[number];

interface Workload {
  name: string;
  image: Measured["image"];
  /** What to ask of the function; a start of it, when absent. */
  ask?: string;
}

const NODE = "node24";
const WORKLOADS: readonly Workload[] = [
  { name: "cpu", image: NODE, ask: "/?work=cpu" },
  { name: "cpu-python", image: "python3", ask: "/" },
  { name: "memory", image: NODE, ask: "/?work=memory" },
  ...["bandwidth", "syscalls", "file-reads", "small-files", "json", "crypto", "zlib"].map(
    (name): Workload => ({ name, image: NODE, ask: `/?work=${name}` }),
  ),
  { name: "startup", image: NODE },
];
export const WORKLOAD_NAMES: readonly string[] = WORKLOADS.map(({ name }) => name);

export interface WorkloadReport {
  name: string;
  n: number;
  failures: Record<Path, number>;
  /** Medians, ms; null when nothing succeeded. */
  process_ms: number | null;
  container_ms: number | null;
  microvm_ms: number | null;
  /** Of medians, to the bare process. */
  container_ratio: number | null;
  microvm_ratio: number | null;
  /** Where those lie with 95 %, by bootstrap; null for fewer than 5 rounds. */
  container_interval: Interval | null;
  microvm_interval: Interval | null;
  /** Of what least met other work of the machine: the shortest times, or the tenth percentile of slices of some 2 ms where the function tells them. */
  container_least_ratio: number | null;
  microvm_least_ratio: number | null;
  /** Those themselves, ms. */
  process_least_ms: number | null;
  container_least_ms: number | null;
  microvm_least_ms: number | null;
  /** Of the micro-VM, each time on average; page faults of its monitor, guest memory included. Absent for starts, and where nobody counts. */
  exits?: Record<string, number>;
  page_faults?: number;
}

export interface OverheadReport {
  host: HostFacts;
  warmUpRounds: number;
  workloads: WorkloadReport[];
  unavailable: { path: string; reason: string }[];
  /** The first failure of each workload and path that had one. */
  firstFailures: Record<string, string>;
}

export interface OverheadOptions extends Rounds {
  /** All, when absent. */
  workloads?: string[];
}

/** The same functions on each path, in sandboxes that stay; a start is a fresh one each time. */
export async function benchOverhead(options: OverheadOptions): Promise<OverheadReport> {
  const workloads = WORKLOADS.filter(({ name }) => options.workloads?.includes(name) ?? true);
  const kvm = existsSync("/dev/kvm");
  const paths = PATHS.filter((path) => kvm || path !== "microvm");
  const grounds = new Map<string, Ground>();
  let measured: Measurement[] = [];
  let outcomes: Outcome[];
  try {
    for (const image of new Set(workloads.map(({ image }) => image))) {
      const language = image === NODE ? "node" : "python";
      const folder = `services/cli/bench/workloads/${language}`;
      grounds.set(image, await layGround({ image, name: `workloads-${language}`, folder }));
    }
    const homes = new Map<string, Home>();
    measured = workloads.flatMap((workload) => {
      const found: Found = {};
      return paths.map((path) => {
        const key = `${workload.image}/${path}`;
        const home = homes.get(key) ?? new Home(grounds.get(workload.image) as Ground, path);
        homes.set(key, home);
        return new Measurement(workload, path, home, found);
      });
    });
    outcomes = await runRounds(measured, options);
  } finally {
    for (const ground of grounds.values()) await ground.close();
  }
  const of = (workload: Workload, path: Path): Timed => {
    const at = measured.findIndex((one) => one.workload === workload && one.path === path);
    const { times, failures } = outcomes[at] ?? { times: [], failures: [] };
    return { times, failures, slicesMs: measured[at]?.slicesMs ?? [] };
  };
  return {
    host: hostFacts(),
    warmUpRounds: WARM_UP_ROUNDS,
    workloads: workloads.map((workload) => ({
      ...figures(workload.name, (path) => of(workload, path)),
      ...measured.find((one) => one.workload === workload && one.path === "microvm")?.work(),
    })),
    unavailable: kvm ? [] : [{ path: "microvm", reason: "/dev/kvm is not there" }],
    firstFailures: Object.fromEntries(
      measured.flatMap((one, index) => {
        const first = outcomes[index]?.failures[0];
        return first === undefined ? [] : [[one.name, first]];
      }),
    ),
  };
}

/** Runs of one workload on one path, and the slices that its function told of. */
type Timed = Pick<Outcome, "times" | "failures"> & { slicesMs: readonly number[] };

/** Times and ratios of one workload. */
export function figures(
  name: string,
  of: (path: Path) => Timed,
): Omit<WorkloadReport, "exits" | "page_faults"> {
  const intervalOf = (path: Path): Interval | null =>
    ratioInterval(of(path).times, of("process").times);
  const [process, container, microvm] = PATHS.map((path) => {
    const { times, failures, slicesMs } = of(path);
    const all = distribution(times, failures.length);
    return { ...all, least_ms: slicesMs.length > 0 ? tenth(slicesMs) : all.min_ms };
  }) as [Distributed, Distributed, Distributed];
  const ratio = (part: number | null, whole: number | null): number | null =>
    part === null || !whole ? null : Math.round((part / whole) * 10_000) / 10_000;
  return {
    name,
    n: process.n,
    failures: {
      process: process.failures,
      container: container.failures,
      microvm: microvm.failures,
    },
    process_ms: process.p50_ms,
    container_ms: container.p50_ms,
    microvm_ms: microvm.p50_ms,
    container_ratio: ratio(container.p50_ms, process.p50_ms),
    microvm_ratio: ratio(microvm.p50_ms, process.p50_ms),
    container_interval: intervalOf("container"),
    microvm_interval: intervalOf("microvm"),
    process_least_ms: process.least_ms,
    container_least_ms: container.least_ms,
    microvm_least_ms: microvm.least_ms,
    container_least_ratio: ratio(container.least_ms, process.least_ms),
    microvm_least_ratio: ratio(microvm.least_ms, process.least_ms),
  };
}
type Distributed = ReturnType<typeof distribution> & { least_ms: number | null };

/** The tenth percentile, by nearest rank. */
const tenth = (values: readonly number[]): number | null =>
  values.toSorted((a, b) => a - b)[Math.ceil(values.length / 10) - 1] ?? null;

/** What a function answers; times of slices where it only computes. */
const answerSchema = z.object({
  answer: z.unknown(),
  slicesMs: z.array(z.number().nonnegative()).max(1000).default([]),
});

/** The sandbox of one path and image, which all of its workloads share. */
class Home {
  readonly #ground: Ground;
  readonly #path: Path;
  #serving: ServingSandbox | undefined;

  constructor(ground: Ground, path: Path) {
    this.#ground = ground;
    this.#path = path;
  }

  /** A fresh sandbox with the function loaded. */
  async fresh(): Promise<ServingSandbox> {
    const ground = this.#ground;
    // All processors: a limit that the bare process has not would be measured as a cost of the walls.
    const shape = { ...ground.shape, cpuMilli: cpus().length * 1000 };
    const assigned =
      this.#path === "process"
        ? await processLauncher(ground).launch(shape, "bench", ground.bundle, ground.spec)
        : await ground.launcher.launch(
            { ...shape, kind: this.#path },
            "bench",
            ground.bundle,
            ground.spec,
          );
    return assigned.initialise(ground.init);
  }

  /** The one that stays. */
  async serving(): Promise<ServingSandbox> {
    if (!this.#serving?.alive) this.#serving = await this.fresh();
    return this.#serving;
  }

  async close(): Promise<void> {
    await this.#serving?.end();
    this.#serving = undefined;
  }
}

/** What all paths answered so far: it must not depend on where a function ran. */
interface Found {
  text?: string;
}

/** One workload on one path. */
class Measurement implements Mode {
  readonly name: string;
  readonly workload: Workload;
  readonly path: Path;
  readonly #home: Home;
  readonly #found: Found;
  #serving: ServingSandbox | undefined;
  #began: ReturnType<ServingSandbox["work"]> | undefined;
  /** Of all rounds that count. */
  readonly slicesMs: number[] = [];
  #newSlices: number[] = [];
  #rounds = 0;
  #exits: Record<string, number> = {};
  #pageFaults: number | undefined = 0;

  constructor(workload: Workload, path: Path, home: Home, found: Found) {
    this.name = `${workload.name}/${path}`;
    this.workload = workload;
    this.path = path;
    this.#home = home;
    this.#found = found;
  }

  async before(): Promise<void> {
    if (this.workload.ask === undefined) return;
    this.#serving = await this.#home.serving();
    this.#began = this.#serving.work();
  }

  async measured(): Promise<void> {
    const { ask } = this.workload;
    if (ask === undefined) {
      this.#serving = await this.#home.fresh();
      return;
    }
    if (!this.#serving) throw new Error("there is no sandbox");
    const { status, body } = await wholeAnswer(this.#serving, { path: ask, timeoutMs: 60_000 });
    if (status !== 200) throw new Error(`answered ${status} ${body.toString("utf8", 0, 200)}`);
    const { answer, slicesMs } = answerSchema.parse(JSON.parse(body.toString("utf8")));
    const text = JSON.stringify(answer);
    this.#found.text ??= text;
    if (text !== this.#found.text) throw new Error(`found ${text}, not ${this.#found.text}`);
    this.#newSlices = slicesMs;
  }

  async after(): Promise<void> {
    if (this.workload.ask === undefined) {
      await this.#serving?.end();
    } else if (this.#serving && this.#began) {
      const { exits, pageFaults } = this.#serving.workSince(this.#began);
      this.#serving = undefined;
      this.#began = undefined;
      // As with times, the first rounds do not count: code is still being compiled.
      if (this.#rounds++ < WARM_UP_ROUNDS) return;
      this.slicesMs.push(...this.#newSlices);
      for (const [reason, count] of Object.entries(exits ?? {}))
        this.#exits[reason] = (this.#exits[reason] ?? 0) + count;
      this.#pageFaults =
        pageFaults === undefined || this.#pageFaults === undefined
          ? undefined
          : this.#pageFaults + pageFaults;
    }
    this.#serving = undefined;
    this.#began = undefined;
  }

  close(): Promise<void> {
    return this.#home.close();
  }

  /** Exits and page faults, each time on average. */
  work(): Pick<WorkloadReport, "exits" | "page_faults"> {
    const rounds = this.#rounds - WARM_UP_ROUNDS;
    if (rounds <= 0) return {};
    const average = (sum: number): number => Math.round((sum / rounds) * 10) / 10;
    const exits = Object.entries(this.#exits).map(([reason, sum]) => [reason, average(sum)]);
    return {
      ...(exits.length === 0 ? {} : { exits: Object.fromEntries(exits) }),
      ...(this.#pageFaults === undefined ? {} : { page_faults: average(this.#pageFaults) }),
    };
  }
}
