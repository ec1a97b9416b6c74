import type { ChildProcess } from "node:child_process";

/**
 * Ends a child that was started `detached`, and all it has started: one of them that hangs, as a forked child of a process with threads may in a lock, would
 * hold the streams it has inherited, and so whoever waits for them.
 */
export function endGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch (error) {
    // All have ended.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
  // What has left the group holds them still.
  for (const stream of child.stdio) stream?.destroy();
}
