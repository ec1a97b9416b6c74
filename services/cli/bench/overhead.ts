import { existsSync } from "node:fs";
import { cpus } from "node:os";
import { z } from "zod";
import { functionConfigSchema } from "#contracts/function";
import { type ServingSandbox, wholeAnswer } from "../../worker/sandbox/index.ts";
import { type HostFacts, hostFacts } from "../host/facts.ts";
import { type Ground, layGround, type Measured } from "./ground.ts";
import { figures, PATHS, type Path, type Timed, type WorkloadReport } from "./overhead-figures.ts";
import { processLauncher } from "./own-modes.ts";
import { type Mode, type Outcome, type Rounds, runRounds, WARM_UP_ROUNDS } from "./rounds.ts";

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
/**
 * How often a sandbox is measured before each path gets a new one. The speed of a process depends on where chance put its stack, heap and pages, and on its
 * hash seed: bare processes of the same Python differ by 1.1 % (standard deviation of 28), so two that stay could tell no percent of isolation, however
 * often they are asked.
 */
export const ROUNDS_OF_A_SANDBOX = 2;
/** One sandbox does all workloads of its language: it keeps the buffers of one, and garbage of others that is collected some time. */
const MEMORY_MB = 512;
/** Calls of a new sandbox that do not count: code is being compiled. */
const CALLS_BEFORE = 3;

export const WORKLOAD_NAMES: readonly string[] = WORKLOADS.map(({ name }) => name);

export interface OverheadReport {
  host: HostFacts;
  warmUpRounds: number;
  roundsOfASandbox: number;
  workloads: WorkloadReport[];
  unavailable: { path: string; reason: string }[];
  /** The first failure of each workload and path that had one. */
  firstFailures: Record<string, string>;
}

export interface OverheadOptions extends Rounds {
  /** All, when absent. */
  workloads?: string[];
}

/** The same functions on each path, in sandboxes that stay for some rounds; a start is a fresh one each time. */
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
      const name = `workloads-${language}`;
      const config = functionConfigSchema.parse({ name, runtime: image, memoryMb: MEMORY_MB });
      grounds.set(image, await layGround({ image, name, folder, config }));
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
    const { times, rounds, failures } = outcomes[at] ?? { times: [], rounds: [], failures: [] };
    return { times, rounds, failures, slicesMs: measured[at]?.slicesMs ?? new Map() };
  };
  return {
    host: hostFacts(),
    warmUpRounds: WARM_UP_ROUNDS,
    roundsOfASandbox: ROUNDS_OF_A_SANDBOX,
    workloads: workloads.map((workload) => ({
      ...figures(
        workload.name,
        (path) => of(workload, path),
        workload.ask === undefined ? 1 : ROUNDS_OF_A_SANDBOX,
      ),
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
  #set: number | undefined;

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

  /** The one that stays for this round and its neighbours. */
  async serving(round: number): Promise<ServingSandbox> {
    const set = Math.floor(round / ROUNDS_OF_A_SANDBOX);
    if (set !== this.#set) await this.close();
    this.#set = set;
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
  readonly slicesMs = new Map<number, readonly number[]>();
  #newSlices: number[] = [];
  #warm: ServingSandbox | undefined;
  #round = 0;
  /** That count. */
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

  async before(round: number): Promise<void> {
    const { ask } = this.workload;
    if (ask === undefined) return;
    this.#round = round;
    this.#newSlices = [];
    const serving = await this.#home.serving(round);
    if (serving !== this.#warm)
      for (let call = 0; call < CALLS_BEFORE; call++) await this.#answer(serving, ask);
    this.#warm = serving;
    this.#serving = serving;
    this.#began = serving.work();
  }

  async measured(): Promise<void> {
    const { ask } = this.workload;
    if (ask === undefined) {
      this.#serving = await this.#home.fresh();
      return;
    }
    if (!this.#serving) throw new Error("there is no sandbox");
    this.#newSlices = await this.#answer(this.#serving, ask);
  }

  /** Slices that the function told of; throws when it found what others have not. */
  async #answer(serving: ServingSandbox, path: string): Promise<number[]> {
    const request = { path, timeoutMs: 60_000, memoryMb: MEMORY_MB };
    const { status, body } = await wholeAnswer(serving, request);
    if (status !== 200) throw new Error(`answered ${status} ${body.toString("utf8", 0, 200)}`);
    const { answer, slicesMs } = answerSchema.parse(JSON.parse(body.toString("utf8")));
    const text = JSON.stringify(answer);
    this.#found.text ??= text;
    if (text !== this.#found.text) throw new Error(`found ${text}, not ${this.#found.text}`);
    return slicesMs;
  }

  async after(): Promise<void> {
    if (this.workload.ask === undefined) {
      await this.#serving?.end();
    } else if (this.#serving && this.#began) {
      const { exits, pageFaults } = this.#serving.workSince(this.#began);
      this.#serving = undefined;
      this.#began = undefined;
      // As with times, the first rounds do not count.
      if (this.#round < 0) return;
      this.#rounds++;
      if (this.#newSlices.length > 0) this.slicesMs.set(this.#round, this.#newSlices);
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
    const rounds = this.#rounds;
    if (rounds === 0) return {};
    const average = (sum: number): number => Math.round((sum / rounds) * 10) / 10;
    const exits = Object.entries(this.#exits).map(([reason, sum]) => [reason, average(sum)]);
    return {
      ...(exits.length === 0 ? {} : { exits: Object.fromEntries(exits) }),
      ...(this.#pageFaults === undefined ? {} : { page_faults: average(this.#pageFaults) }),
    };
  }
}
