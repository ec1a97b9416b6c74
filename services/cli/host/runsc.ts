import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inPath, isRunnable } from "./in-path.ts";

/** A gVisor that has run a program on this machine. */
export interface Runsc {
  path: string;
  /** As it says itself. */
  version: string;
  /** Options before its subcommand, as the trial had them. */
  global: readonly string[];
  /** Why memory and processes of its sandboxes have no limits; undefined when they have. */
  unlimited: string | undefined;
}

/** What gVisor intercepts system calls by: its own default, named so that a report can say it. */
export const RUNSC_PLATFORM = "systrap";

/** Starts take a few hundred ms; some platforms never get there on some machines. */
const BOUND_MS = 30_000;
/** What one says that the go command has built of gVisor's module, where nobody named the version. */
const NO_VERSION = /^VERSION_MISSING$/;
const GLOBAL = [`--platform=${RUNSC_PLATFORM}`, "--network=none"];

/** CLOISTER_RUNSC or PATH's, after it has run a program; else one clause that says why there is none. Needs root. */
export async function findRunsc(
  env: { CLOISTER_RUNSC?: string; PATH?: string } = process.env,
): Promise<Runsc | { lack: string }> {
  const named = env.CLOISTER_RUNSC;
  if (named !== undefined && !isRunnable(named))
    return { lack: `CLOISTER_RUNSC names ${named}, which is no program` };
  const path = named ?? inPath("runsc", env.PATH);
  if (path === undefined)
    return { lack: "runsc is not installed: it is not in PATH, nor does CLOISTER_RUNSC name it" };
  const told = await execute(path, ["--version"]);
  const version = /^runsc version (\S+)/m.exec(told.stdout)?.[1]?.replace(NO_VERSION, "unnamed");
  if (version === undefined)
    return { lack: `${path} does not say that it is runsc: ${told.failure ?? "no version"}` };
  const help = await execute(path, ["help", "run"]);
  if (!/^\s+-pass-fd\b/m.test(`${help.stdout}\n${help.stderr}`))
    return {
      lack: `runsc found at ${path} (${version}), but it is too old to hand an open socket to a container (run --pass-fd)`,
    };
  const limited = await trial(path, GLOBAL);
  if (limited === undefined) return { path, version, global: GLOBAL, unlimited: undefined };
  const global = [...GLOBAL, "--ignore-cgroups"];
  const failure = await trial(path, global);
  return failure === undefined
    ? { path, version, global, unlimited: limited }
    : { lack: `runsc found at ${path} (${version}), but does not start: ${failure}` };
}

/** Why it cannot run `true` of this machine; undefined when it can. */
async function trial(path: string, global: readonly string[]): Promise<string | undefined> {
  const folder = mkdtempSync(join(tmpdir(), "cloister-runsc-"));
  const root = ["--root", join(folder, "state")];
  const id = `cloister-trial-${process.pid}`;
  mkdirSync(join(folder, "state"));
  writeFileSync(join(folder, "config.json"), JSON.stringify(TRIAL));
  try {
    // gVisor keeps a network namespace mounted below its state: that goes with this mount namespace.
    const inside = ["--mount", path, ...root, ...global];
    const { failure } = await execute("unshare", [...inside, "run", "--bundle", folder, id]);
    if (failure !== undefined) await execute("unshare", [...inside, "delete", "--force", id]);
    return failure;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const NONE: string[] = [];
const TRIAL = {
  ociVersion: "1.0.2",
  process: {
    user: { uid: 65534, gid: 65534 },
    args: ["/bin/true"],
    env: ["PATH=/usr/bin:/bin"],
    cwd: "/",
    capabilities: { bounding: NONE, effective: NONE, permitted: NONE, inheritable: NONE },
    noNewPrivileges: true,
  },
  root: { path: "/", readonly: true },
  mounts: [{ destination: "/proc", type: "proc", source: "proc" }],
  linux: {
    resources: { memory: { limit: 256 * 1024 * 1024 }, pids: { limit: 64 } },
    namespaces: ["pid", "network", "ipc", "uts", "mount"].map((type) => ({ type })),
  },
};

interface Ended {
  stdout: string;
  stderr: string;
  /** Its first line about why it failed. */
  failure: string | undefined;
}

function execute(program: string, args: string[]): Promise<Ended> {
  const options = { timeout: BOUND_MS, killSignal: "SIGKILL", encoding: "utf8" } as const;
  return new Promise((resolve) => {
    execFile(program, args, options, (error, stdout, stderr) => {
      if (!error) return resolve({ stdout, stderr, failure: undefined });
      const failure = error.killed
        ? `no end after ${BOUND_MS / 1000} s`
        : (firstReason(stderr) ?? firstReason(stdout) ?? error.message);
      resolve({ stdout, stderr, failure });
    });
  });
}

/** The first line that has words, without what gVisor's log puts before them. */
function firstReason(text: string): string | undefined {
  const lines = text.split("\n").map((line) => line.trim().replace(LOG_PREFIX, ""));
  return lines.find((line) => line !== "")?.slice(0, 300);
}

/** Level and date, time, thread, file and line. */
const LOG_PREFIX = /^[IWED]\d{4} \d{2}:\d{2}:\d{2}\.\d+\s+\d+ [\w.]+:\d+\] /;
