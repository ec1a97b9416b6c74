import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type RunnerProcess, spawnRunner } from "#testkit/runner-process";

const ROOT = join(import.meta.dirname, "../../..");
const RUNNER = join(import.meta.dirname, "runner.mjs");
export const MAJORS = [20, 22, 24, 26] as const;

/** Functions under test: folders made of texts and the runners that serve them, on one version of Node. */
export class Functions {
  readonly major: number;
  readonly #folder = mkdtempSync(join(tmpdir(), "cloister-node-runner-"));
  readonly #runners: RunnerProcess[] = [];
  #next = 1;

  constructor(major: number) {
    this.major = major;
  }

  /** A runner that waits for INIT. */
  spawn(env: Record<string, string> = {}): RunnerProcess {
    const node = join(ROOT, "node_modules", `node-${this.major}`, "bin/node");
    const runner = spawnRunner({
      argv: [node, "--disable-warning=ExperimentalWarning", RUNNER],
      env: { PATH: "/usr/bin:/bin", HOME: "/tmp", TZ: "UTC", ...env },
    });
    this.#runners.push(runner);
    return runner;
  }

  /** A folder with these files; a text alone is index.mjs. */
  folder(files: string | Record<string, string>): string {
    const root = join(this.#folder, `f${this.#next++}`);
    mkdirSync(root);
    for (const [name, text] of Object.entries(
      typeof files === "string" ? { "index.mjs": files } : files,
    )) {
      mkdirSync(dirname(join(root, name)), { recursive: true });
      writeFileSync(join(root, name), text);
    }
    return root;
  }

  /** A runner that serves these files. Throws when they cannot be loaded. */
  async serve(
    files: string | Record<string, string>,
    fields: Record<string, unknown> = {},
  ): Promise<RunnerProcess> {
    const runner = this.spawn();
    const done = await runner.init(this.folder(files), fields);
    if (done.ok !== true) throw new Error(`INIT failed: ${JSON.stringify(done.error)}`);
    return runner;
  }

  /** The error of INIT_DONE for these files. */
  async loadError(
    files: string | Record<string, string>,
    fields: Record<string, unknown> = {},
  ): Promise<Record<string, string>> {
    const done = await this.spawn().init(this.folder(files), fields);
    if (done.ok !== false) throw new Error("INIT should have failed");
    return done.error as Record<string, string>;
  }

  /** Ends the runners of a test. */
  async closeRunners(): Promise<void> {
    await Promise.all(this.#runners.splice(0).map((runner) => runner.close()));
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
