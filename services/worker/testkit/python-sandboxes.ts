import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { functionConfigSchema, type VersionSpec } from "#contracts/function";
import type { BundleHold } from "../bundles/bundle-cache.ts";
import { ProcessLauncher, type StatFiles } from "../sandbox/index.ts";

/** The real Python runner as a bare process: quick to start, and enough for what is tested around sandboxes. */
const RUNNER = join(import.meta.dirname, "../../../runtime/runners/python/runner.py");

export const pythonLauncher = (
  // Of its first thread, which runs the function: what it has run comes first there.
  stat = (pid: number): StatFiles => ({ cpu: { path: `/proc/${pid}/schedstat`, format: "ns" } }),
): ProcessLauncher =>
  new ProcessLauncher(() => ["/usr/bin/python3", "-I", "-S", "-B", "-X", "utf8", RUNNER], stat);

/** Folders of functions, by a made-up digest. */
export class FunctionFolders {
  readonly #root = mkdtempSync(join(tmpdir(), "cloister-functions-"));
  readonly #digests = new Map<string, string>();
  held = 0;

  /** A version whose main.py is `source`. */
  version(
    name: string,
    source: string,
    config: Record<string, unknown> = {},
    version = 1,
  ): VersionSpec {
    const digest = `${name}-${version}`;
    const folder = mkdtempSync(join(this.#root, `${digest}-`));
    writeFileSync(join(folder, "main.py"), source);
    this.#digests.set(digest, folder);
    return {
      versionId: `ver_${digest}`,
      functionId: `fn_${name}`,
      tenantId: "ten_test",
      name,
      version,
      bundleDigest: digest,
      config: functionConfigSchema.parse({ name, runtime: "python3", ...config }),
    };
  }

  async hold(digest: string): Promise<BundleHold> {
    const path = this.#digests.get(digest);
    if (!path) throw new Error(`No function ${digest}`);
    this.held++;
    return {
      digest,
      path,
      release: () => {
        this.held--;
      },
    };
  }

  remove(): void {
    rmSync(this.#root, { recursive: true, force: true });
  }
}
