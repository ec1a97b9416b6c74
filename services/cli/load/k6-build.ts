import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { childEnd } from "#embedded/process-life";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { EXIT, Failure } from "../failure.ts";
import { inPath, isRunnable } from "../host/in-path.ts";

/** A Go module whose go.mod and go.sum pin k6 and all that it is built of. */
const MODULE = join(PROJECT_ROOT, "loadtests/k6");
const PACKAGE = "go.k6.io/k6";
const BUILDS = join(PROJECT_ROOT, ".cloister/k6");
/** Before the number of the process that builds. */
const HALF = "half-";
/** Go says what is wrong at the end, characters. */
const MOST_SHOWN = 1500;

const read = (name: string): string => readFileSync(join(MODULE, name), "utf8");

/** As go.mod pins it. */
export const PINNED_VERSION = /go\.k6\.io\/k6 v(\S+)/.exec(read("go.mod"))?.[1] ?? "unknown";

/** Where the build of these pins lies, or will: the digest in its name is its stamp. */
export function builtK6(): string {
  const digest = createHash("sha256").update(read("go.mod")).update(read("go.sum")).digest("hex");
  return join(BUILDS, digest.slice(0, 16), "k6");
}

/** Go in PATH, or where its own archive and Debian put it. */
export const findGo = (): string | undefined =>
  inPath("go") ?? ["/usr/local/go/bin/go", "/usr/lib/go/bin/go"].find(isRunnable);

export interface BuildOptions {
  signal?: AbortSignal;
  niceness?: number;
  tell(sentence: string): void;
}

/** Builds the pinned k6; two at once wait for each other. What is half done is never taken for a build. */
export async function buildK6({ signal, niceness = 0, tell }: BuildOptions): Promise<string> {
  const go = findGo();
  if (go === undefined) {
    throw new Failure(
      "k6 is not on this machine, and neither is Go, which would build it.",
      "Install Go 1.25 or newer, or install k6 1 and name it with CLOISTER_K6.",
    );
  }
  const target = builtK6();
  // All that is half done lies here; Go itself leaves its part when it is interrupted.
  const half = join(dirname(target), `${HALF}${process.pid}`);
  mkdirSync(half, { recursive: true });
  tell(`Building k6 ${PINNED_VERSION} with Go, once; it takes a minute or two.`);
  try {
    // All of these execute the next one, so it is one process: Go's own, with the lock. It ends when this one is gone.
    const child = spawn(
      "setpriv",
      [
        ...["--pdeathsig=INT", "flock", "--no-fork", join(BUILDS, "lock")],
        ...[
          "nice",
          "-n",
          String(niceness),
          go,
          "build",
          "-ldflags=-s -w",
          "-o",
          join(half, "k6"),
          PACKAGE,
        ],
      ],
      {
        cwd: MODULE,
        stdio: ["ignore", "pipe", "pipe"],
        env: {
          ...process.env,
          CGO_ENABLED: "0",
          GOFLAGS: "-mod=readonly -trimpath -buildvcs=false",
          GOWORK: "off",
          GOTMPDIR: half,
        },
      },
    );
    let said = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        said = (said + text).slice(-MOST_SHOWN);
      });
    }
    const interrupt = (): void => void child.kill("SIGINT");
    if (signal?.aborted) interrupt();
    signal?.addEventListener("abort", interrupt, { once: true });
    const { code } = await childEnd(child);
    signal?.removeEventListener("abort", interrupt);
    if (signal?.aborted)
      throw new Failure("The build of k6 was interrupted.", "Run it again.", EXIT.interrupted);
    if (code !== 0) {
      throw new Failure(
        `Go could not build k6:\n${said.trimEnd()}`,
        "Correct what it says and run this again, or install k6 1 and name it with CLOISTER_K6.",
      );
    }
    renameSync(join(half, "k6"), target);
  } finally {
    rmSync(half, { recursive: true, force: true });
  }
  removeOthers(target);
  return target;
}

/** Builds of other pins, that nobody will ask for again, and what a build has left that was killed. */
function removeOthers(target: string): void {
  const remove = (folder: string, name: string): void =>
    rmSync(join(folder, name), { recursive: true, force: true });
  for (const name of readdirSync(BUILDS))
    if (name !== "lock" && join(BUILDS, name) !== dirname(target)) remove(BUILDS, name);
  for (const name of readdirSync(dirname(target)))
    if (name.startsWith(HALF) && !existsSync(`/proc/${name.slice(HALF.length)}`))
      remove(dirname(target), name);
}
