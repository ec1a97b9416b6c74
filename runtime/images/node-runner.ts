import { rmSync } from "node:fs";
import { join, relative } from "node:path";
import { build, version } from "esbuild";
import { ImageBuildError } from "./progress.ts";

/** What decides, beside the sources, what {@link bundleRunner} makes. */
export const BUNDLER = `esbuild ${version}`;

/**
 * Puts the modules of the Node runner below `root` into one file, in the place of its main one. To find, read and link a module takes Node six system calls and more,
 * which cost a micro-VM most; a start needs ten modules. What the runner loads by name stays a file.
 */
export async function bundleRunner(root: string): Promise<void> {
  const main = join(root, "cloister/runner.mjs");
  try {
    const { metafile, warnings } = await build({
      entryPoints: [main],
      outfile: main,
      allowOverwrite: true,
      absWorkingDir: root,
      bundle: true,
      platform: "node",
      format: "esm",
      // The oldest that it runs on.
      target: "node20",
      // None of the folders around, which would decide some of what is written.
      tsconfigRaw: {},
      metafile: true,
      logLevel: "silent",
    });
    if (warnings[0]) throw new Error(warnings[0].text);
    const parts = Object.keys(metafile.inputs).map((path) => join(root, path));
    for (const part of parts) if (relative(part, main) !== "") rmSync(part);
  } catch (cause) {
    throw new ImageBuildError(
      `The Node runner cannot be bundled: ${cause instanceof Error ? cause.message : cause}`,
      "Mend runtime/runners/node; `node runtime/images/build.ts` builds the images alone.",
      { cause },
    );
  }
}
