import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";

/** Mounts of others' programs that nobody has to take away again: they go with this process, however it ends. */
export interface MountNamespace {
  /** The process that holds it. */
  pid: number;
  /** What runs a command line in it, put before that. */
  enter: string[];
  close(): Promise<void>;
}

/** Made anew, held by a process of its own that ends when its standard input does. */
export async function holdMountNamespace(): Promise<MountNamespace> {
  // A session of its own: Ctrl-C ends what runs in the namespace, not the namespace that it is cleaned up in.
  const holder = spawn("unshare", ["--mount", "cat"], {
    stdio: ["pipe", "pipe", "pipe"],
    detached: true,
  });
  const ended = endOf(holder);
  let said = "";
  holder.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  holder.stdin.on("error", () => {});
  holder.stdin.write("\n");
  // What comes back shows that cat runs, and so that the namespace is there.
  const failed = await Promise.race([once(holder.stdout, "data").then(() => false), ended]);
  if (failed !== false) throw new Error(`no mount namespace: ${said.trim() || failed}`);
  const pid = holder.pid ?? 0;
  return {
    pid,
    enter: ["nsenter", `--mount=/proc/${pid}/ns/mnt`],
    async close() {
      holder.stdin.end();
      await ended;
    },
  };
}

const endOf = (child: ChildProcess): Promise<string> =>
  new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) => resolve(`ended with ${signal ?? code}`));
  });
