import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { type FunctionConfig, functionConfigSchema, type Runtime } from "#contracts/function";
import { packFunction } from "../../cli/bundle/pack.ts";
import { unpackBundle } from "../../worker/bundles/unpack.ts";
import { type RunnerProcess, spawnRunner } from "./runner-process.ts";

const ROOT = join(import.meta.dirname, "../../..");

/** The command line of a runtime's runner, without any walls. */
export function argvOf(runtime: Runtime): string[] {
  if (runtime === "binary") return [join(ROOT, "target/release/cloister-binary-runner")];
  if (runtime === "python3")
    return [
      ...[process.env.CLOISTER_TEST_PYTHON ?? "/usr/bin/python3", "-I", "-S", "-B", "-X", "utf8"],
      join(ROOT, "runtime/runners/python/runner.py"),
    ];
  return [
    join(ROOT, `node_modules/${runtime.replace("node", "node-")}/bin/node`),
    "--disable-warning=ExperimentalWarning",
    join(ROOT, "runtime/runners/node/runner.mjs"),
  ];
}

export interface Unpacked {
  argv: string[];
  env: Record<string, string>;
  root: string;
  fields: { function: string; memoryMb: number; timeoutMs: number; entry?: string };
}

/** Functions of folders in bare runners; `close` ends and removes all of them. */
export class FunctionRunners {
  readonly #folders: string[] = [];
  readonly #runners: RunnerProcess[] = [];

  /** A function as a sandbox has it: packed by the command line, unpacked by the worker, so that what is not in the bundle is missed. */
  async unpacked(folder: string, runtime?: Runtime): Promise<Unpacked> {
    const packed = await packFunction(folder);
    const config: FunctionConfig = functionConfigSchema.parse(packed.config);
    const root = mkdtempSync(join(tmpdir(), "cloister-example-"));
    this.#folders.push(root);
    await unpackBundle(packed.bundle, root);
    const { entry, memoryMb, timeoutMs } = config;
    return {
      argv: argvOf(runtime ?? config.runtime),
      env: { PATH: "/usr/bin:/bin", HOME: "/tmp", LANG: "C.UTF-8", TZ: "UTC" },
      root,
      fields: { function: basename(folder), memoryMb, timeoutMs, ...(entry ? { entry } : {}) },
    };
  }

  /** A runner that has loaded it. Rejects when it cannot be loaded. */
  async serve(folder: string, runtime?: Runtime): Promise<RunnerProcess> {
    const { argv, env, root, fields } = await this.unpacked(folder, runtime);
    const runner = this.adopt(spawnRunner({ argv, env }));
    const done = await runner.init(root, fields);
    if (done.ok !== true)
      throw new Error(`${folder} cannot be loaded: ${JSON.stringify(done.error)}`);
    return runner;
  }

  /** Closes a runner that the test has made itself. */
  adopt(runner: RunnerProcess): RunnerProcess {
    this.#runners.push(runner);
    return runner;
  }

  async close(): Promise<void> {
    await Promise.all(this.#runners.map((runner) => runner.close()));
    for (const folder of this.#folders) rmSync(folder, { recursive: true });
  }
}
