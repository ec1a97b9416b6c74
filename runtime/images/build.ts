import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import {
  baseLayer,
  binaryRunnerLayer,
  checkLibraries,
  libcLayer,
  nodeLayer,
  nodeRunnerLayer,
  pythonLayer,
  pythonRunnerLayer,
  type Recipe,
} from "./layers.ts";
import { PackageCache } from "./packages.ts";
import { ImageBuildError, type Progress } from "./progress.ts";
import { ImageStore, type Layer, type Manifest, mebibytes } from "./store.ts";
import { hashText } from "./tree.ts";

/** Every image there is, in the order they are built. */
export const IMAGE_NAMES = ["node24", "node20", "node22", "node26", "python3", "binary"] as const;
export type ImageName = (typeof IMAGE_NAMES)[number];

export interface BuildOptions {
  /** Where layers/ and <name>.json go; made if missing. */
  directory: string;
  /** Which images; all if absent. */
  names?: readonly ImageName[];
  onProgress?: Progress;
  /** Builds every layer anew although its inputs are the same. */
  force?: boolean;
  /** Root of the source tree; the one this file is in if absent. */
  source?: string;
}

/** A manifest as published; images share layers, so their sizes do not add up to what the disk holds. */
export interface BuiltImage extends Manifest {
  /** Whether the manifest differs from the one that stood there before. */
  changed: boolean;
}

const ENVIRONMENT = { PATH: "/usr/bin:/bin", HOME: "/tmp", LANG: "C.UTF-8", TZ: "UTC" };
/**
 * A sandbox has one core, so that the threads of Node and Python take turns: an arena of libc's for each (mallopt(3)) would only be a place of its own in the address space, and for a
 * micro-VM one more memory slot to make and to take apart. The runner takes the variable away before a function could see it.
 */
const INTERPRETERS_ENVIRONMENT = { ...ENVIRONMENT, MALLOC_ARENA_MAX: "1" };

/**
 * Builds what is not built yet and publishes one manifest per image. Needs root, apt and binutils; installs nothing.
 * Safe to kill at any time and to run twice at once. Errors are ImageBuildError: one sentence and a remedy.
 */
export async function buildImages(options: BuildOptions): Promise<BuiltImage[]> {
  const progress = options.onProgress ?? (() => {});
  if (process.arch !== "x64") {
    throw new ImageBuildError(
      `Images are for x64, this machine is ${process.arch}.`,
      "Use an x64 machine.",
    );
  }
  if (process.getuid?.() !== 0) {
    throw new ImageBuildError(
      "Building images needs root: their files belong to it.",
      "Run as root.",
    );
  }
  const store = new ImageStore(resolve(options.directory), progress);
  return store.exclusively(async () => {
    const recipe: Recipe = {
      store,
      packages: new PackageCache(join(store.directory, "cache"), progress),
      source: options.source ?? join(import.meta.dirname, "../.."),
      force: options.force ?? false,
    };
    const base = await baseLayer(recipe);
    const libc = await libcLayer(recipe);
    const built: BuiltImage[] = [];
    for (const name of options.names ?? IMAGE_NAMES) {
      const { layers, argv } = await upperLayers(recipe, name, libc);
      built.push(publish(store, name, [base, libc, ...layers], argv));
    }
    store.collectGarbage();
    recipe.packages.prune();
    return built;
  });
}

async function upperLayers(
  recipe: Recipe,
  name: ImageName,
  libc: Layer,
): Promise<{ layers: Layer[]; argv: string[] }> {
  if (name === "binary") {
    return { layers: [await binaryRunnerLayer(recipe)], argv: ["/cloister/runner"] };
  }
  if (name === "python3") {
    const python = await pythonLayer(recipe, libc);
    const runner = await pythonRunnerLayer(recipe, libc, python);
    // -I and -S: no environment, no user or system site folder; what a function may import is the runner's business.
    const argv = [
      `/usr/bin/${python.python}`,
      "-I",
      "-S",
      "-B",
      "-X",
      "utf8",
      "/cloister/runner.py",
    ];
    return { layers: [python, runner], argv };
  }
  const layers = [await nodeLayer(recipe, name.slice(4)), await nodeRunnerLayer(recipe)];
  const flags = nodeFlags(recipe.source, name);
  const heap = "--max-old-space-size={memoryMb}";
  return { layers, argv: ["/usr/bin/node", heap, ...flags, "/cloister/runner.mjs"] };
}

/** Flags the Node runner asks for: runtime/runners/node/flags.json, `{"all": […], "node20": […]}`. */
function nodeFlags(source: string, name: string): string[] {
  const path = join(source, "runtime/runners/node/flags.json");
  if (!existsSync(path)) return [];
  const lists: Record<string, unknown> = JSON.parse(readFileSync(path, "utf8"));
  const flags = [lists.all, lists[name]].flatMap((list) => (Array.isArray(list) ? list : []));
  if (flags.every((flag) => typeof flag === "string" && flag.startsWith("-"))) return flags;
  throw new ImageBuildError(
    `${path} holds something that is no flag.`,
    "Each entry is a string like --flag.",
  );
}

function publish(store: ImageStore, name: string, layers: Layer[], argv: string[]): BuiltImage {
  const digests = layers.map((layer) => layer.digest);
  const runner = { argv, env: name === "binary" ? ENVIRONMENT : INTERPRETERS_ENVIRONMENT };
  const digest = hashText(JSON.stringify({ layers: digests, runner }));
  const sizeBytes = layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
  const manifest: Manifest = { schema: 1, name, digest, layers: digests, runner, sizeBytes };
  if (store.manifest(name)?.digest !== digest) {
    checkLibraries(
      name,
      digests.map((layer) => store.layerPath(layer)),
    );
  }
  return { ...manifest, changed: store.publish(manifest) };
}

const HELP = `node runtime/images/build.ts --dir DIR [--only node24,python3,…] [--force] [--verify] [--json]

Builds the images sandboxes run from: ${IMAGE_NAMES.join(", ")}.
  --dir DIR     where layers/ and the manifests go
  --only NAMES  these images only
  --force       build every layer anew
  --verify      afterwards recompute the digest of every layer
  --json        print the manifests instead of a table
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      dir: { type: "string" },
      only: { type: "string" },
      force: { type: "boolean" },
      verify: { type: "boolean" },
      json: { type: "boolean" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  if (!values.dir) throw new ImageBuildError("--dir is missing.", "Name the image directory.");
  const names = values.only?.split(",").map((name) => {
    const known = IMAGE_NAMES.find((entry) => entry === name);
    if (known) return known;
    throw new ImageBuildError(
      `There is no image ${name}.`,
      `Choose from ${IMAGE_NAMES.join(", ")}.`,
    );
  });
  const images = await buildImages({
    directory: values.dir,
    force: values.force ?? false,
    onProgress: (line) => process.stderr.write(`${line}\n`),
    ...(names ? { names } : {}),
  });
  if (values.verify) {
    const store = new ImageStore(resolve(values.dir), () => {});
    for (const image of images) store.verify(image);
  }
  if (values.json) process.stdout.write(`${JSON.stringify(images)}\n`);
  else {
    for (const image of images) {
      const size = mebibytes(image.sizeBytes).padStart(10);
      process.stdout.write(`${image.name.padEnd(8)} ${size}  ${image.digest.slice(0, 12)}\n`);
    }
  }
}

if (import.meta.main) {
  main().catch((error: unknown) => {
    const remedy = error instanceof ImageBuildError ? ` ${error.remedy}` : "";
    process.stderr.write(`${error instanceof Error ? error.message : error}${remedy}\n`);
    process.exitCode = 1;
  });
}
