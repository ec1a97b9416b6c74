import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { z } from "zod";
import {
  type FunctionConfig,
  functionConfigSchema,
  type Runtime,
  type VersionSpec,
} from "#contracts/function";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import {
  type InitMessage,
  initOf,
  SandboxdLauncher,
  type SandboxShape,
  shapeFor,
  type WholeRequest,
} from "../../worker/sandbox/index.ts";
import { Failure, messageOf } from "../failure.ts";
import { filesBelow } from "../host/files-below.ts";
import { imagesFolder } from "../instance/folders.ts";
import { sandboxdService } from "../instance/services.ts";
import type { Running } from "../instance/supervised.ts";
import { makeScratch } from "./scratch.ts";

const manifestSchema = z.looseObject({
  layers: z.array(z.string().regex(/^[0-9a-f]{64}$/)),
  runner: z.object({ argv: z.array(z.string()).min(1), env: z.record(z.string(), z.string()) }),
});

const madeSchema = z.looseObject({
  pid: z.number().int().positive().optional(),
  phases: z.record(z.string(), z.number()).catch({}),
});

const MEMORY_MB = 256;

/** A function to measure with, and the image it runs in. */
export interface Measured {
  image: Runtime;
  /** Its name, and its folder: in the project, or wherever it is. */
  name: string;
  folder: string;
  /** What it was deployed with; its defaults when absent. */
  config?: FunctionConfig;
  /** What it is asked; examples/hello's greeting when absent. */
  question?: Question;
}

/** What a function is asked, and whether it answered rightly. */
export interface Question {
  request: WholeRequest;
  isRight(status: number, body: Buffer): boolean;
}

const GREETING: Question = {
  request: { path: "/?name=bench" },
  isRight: (status, body) => status === 200 && body.includes("Hello, bench!"),
};

/** The function that most is measured with, by runtime. */
export const HELLO = {
  node24: { image: "node24", name: "hello", folder: "examples/hello" },
  python3: { image: "python3", name: "hello-python", folder: "examples/hello-python" },
} as const satisfies Record<string, Measured>;
export type HelloRuntime = keyof typeof HELLO;

/** What every mode shares: the same image, runner, function and settings. */
export interface Ground {
  shape: SandboxShape;
  question: Question;
  init: InitMessage;
  /** The runner's command line inside the image. */
  argv: string[];
  env: Record<string, string>;
  /** The image's layers as one folder, for modes that know no layers: hard links, so it is the same page cache. */
  rootfs: string;
  /** The function, as the bundle of this digest in sandboxd's folder. */
  bundle: { digest: string; path: string };
  /** The function as a version of it, for what is kept by version. */
  spec: VersionSpec;
  launcher: SandboxdLauncher;
  /** What sandboxd said of each sandbox it made: its first process, and how long each step took, ms. */
  made: Map<string, { pid: number | undefined; steps: Record<string, number> }>;
  /** The benchmark's own sandboxd. */
  sandboxd: { instance: string; pid: number };
  /** Children of this process that are no sandbox of others: sandboxd, and what a mode adds. */
  bystanders: Set<number>;
  /** A folder for a mode's own files; goes at the end. */
  scratch: string;
  close(): Promise<void>;
}

/** Starts a sandboxd of the benchmark's own and lays out what the modes run. Throws a Failure; then nothing is left. */
export async function layGround(measured: Measured): Promise<Ground> {
  const { image, name, folder, question = GREETING } = measured;
  const config =
    measured.config ?? functionConfigSchema.parse({ name, runtime: image, memoryMb: MEMORY_MB });

  const manifestPath = join(imagesFolder(), `${image}.json`);
  let manifest: z.infer<typeof manifestSchema>;
  try {
    manifest = manifestSchema.parse(JSON.parse(readFileSync(manifestPath, "utf8")));
  } catch (error) {
    throw new Failure(
      `The image ${image} cannot be read: ${messageOf(error)}.`,
      "Run ./cloister setup.",
    );
  }
  const { folders, rootfs, remove } = makeScratch();
  let sandboxd: Running | undefined;
  try {
    for (const layer of manifest.layers) {
      execFileSync("cp", ["-al", `${join(imagesFolder(), "layers", layer)}/.`, rootfs]);
    }
    const source = resolve(PROJECT_ROOT, folder);
    const digest = digestOf(source);
    const path = join(folders.bundles, digest);
    cpSync(source, path, { recursive: true });
    const said: string[] = [];
    sandboxd = await sandboxdService(folders).start({
      onLine: (line) => void said.push(line),
      onSpawn() {},
    });
    const made: Ground["made"] = new Map();
    const launcher = new SandboxdLauncher({
      socketPath: join(folders.run, "sandboxd.sock"),
      onMade: (id, reply) => {
        const { pid, phases: steps } = madeSchema.parse(reply);
        made.set(id, { pid, steps });
      },
    });
    await launcher.connect();
    const running = sandboxd;
    const spec: VersionSpec = {
      versionId: "ver_bench",
      functionId: "fn_bench",
      tenantId: "ten_bench",
      name,
      version: 1,
      bundleDigest: digest,
      config,
    };
    return {
      shape: shapeFor(config),
      question,
      init: initOf(spec),
      argv: manifest.runner.argv.map((word) =>
        word.replaceAll("{memoryMb}", String(config.memoryMb)),
      ),
      env: manifest.runner.env,
      rootfs,
      bundle: { digest, path },
      spec,
      launcher,
      made,
      sandboxd: { instance: folders.id, pid: running.child.pid ?? 0 },
      bystanders: new Set([running.child.pid ?? 0]),
      scratch: folders.data,
      async close() {
        launcher.close();
        await running.stop();
        remove();
      },
    };
  } catch (error) {
    await sandboxd?.stop();
    remove();
    if (error instanceof Failure) throw error;
    throw new Failure(`The benchmark cannot start: ${messageOf(error)}`, "Run ./cloister doctor.");
  }
}

/** Of names and contents of all files below. */
function digestOf(source: string): string {
  const hash = createHash("sha256");
  for (const file of filesBelow(source).sort()) {
    hash.update(`${relative(source, file)}\0`);
    hash.update(readFileSync(file));
  }
  return hash.digest("hex");
}
