import { rmSync } from "node:fs";
import { signalProcess, waitGone } from "#embedded/process-life";
import { Failure } from "../failure.ts";
import type { Folders } from "./folders.ts";
import { readState } from "./state-file.ts";

/** A process of a former run gets this long after each signal, ms. */
const END_BOUND_MS = 10_000;

/**
 * Removes what a former run of this instance left because it was killed: processes (named by pid and start time, so never somebody
 * else's), sockets, state. Sandboxes and cgroups are sandboxd's to remove, when it starts. Call it only with the instance's lock held.
 * Returns what was found, for the log.
 */
export async function removeLeftovers(folders: Folders): Promise<string[]> {
  const found: string[] = [];
  const state = readState(folders.stateFile);
  const entries = Object.entries(state?.services ?? {});
  const end = async (name: string, pid: number, startTime: string): Promise<void> => {
    // PostgreSQL and Redis put what they hold on disk when asked politely; the others hold nothing.
    const polite = name === "postgres" ? "SIGINT" : "SIGTERM";
    for (const signal of [polite, "SIGKILL"] as const) {
      if (!signalProcess(pid, startTime, signal)) return;
      if (await waitGone(pid, startTime, END_BOUND_MS)) {
        found.push(`${name} (pid ${pid})`);
        return;
      }
    }
    throw new Failure(
      `${name} (pid ${pid}) of a former run does not end.`,
      "It hangs in the kernel; restart the machine, or name another folder with --data.",
    );
  };
  await Promise.all(entries.map(([name, known]) => end(name, known.pid, known.startTime)));
  for (const file of [folders.stateFile, folders.credentialsFile]) rmSync(file, { force: true });
  rmSync(folders.run, { recursive: true, force: true });
  return found;
}
