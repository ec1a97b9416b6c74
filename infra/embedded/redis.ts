import type { ChildProcess } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { endChild } from "./process-life.ts";
import { type EmbeddedServer, readyLine } from "./server-start.ts";
import { account, bound, spawnAs } from "./unprivileged.ts";

export interface RedisOptions {
  dataDirectory: string;
  /** Its folder must be one `user` may write to; who may enter it may use Redis. */
  socketPath: string;
  user: string;
  onLine?: (line: string) => void;
  /** Hears of the server's process before it is ready. */
  onSpawn?: (child: ChildProcess) => void;
}

/** Reading a large append-only file takes time; longer than this is a failure, ms. */
const START_BOUND_MS = 60_000;

/**
 * Starts Debian's redis-server on a Unix socket alone, with its append-only file flushed every second. Errors say what Redis said.
 */
export async function startRedis(options: RedisOptions): Promise<EmbeddedServer> {
  const { dataDirectory, socketPath, user } = options;
  if (!existsSync("/usr/bin/redis-server")) {
    throw new Error("redis-server is missing. Run ./cloister setup, which installs it.");
  }
  const { uid, gid } = account(user);
  mkdirSync(dataDirectory, { recursive: true });
  chownSync(dataDirectory, uid, gid);
  chmodSync(dataDirectory, 0o700);
  rmSync(socketPath, { force: true });
  const settings: Record<string, string> = {
    port: "0",
    unixsocket: `${bound("redis-socket")}${socketPath.slice(dirname(socketPath).length)}`,
    unixsocketperm: "770",
    dir: bound("redis"),
    appendonly: "yes",
    appendfsync: "everysec",
    // The append-only file is the one copy; a snapshot beside it would only be a second, older one.
    save: "",
    // What is queued must never be thrown out; when memory is short, writes fail and say so.
    "maxmemory-policy": "noeviction",
    daemonize: "no",
    // An append-only file whose last write a crash cut is read up to there.
    "aof-load-truncated": "yes",
    "always-show-logo": "no",
  };
  const child = spawnAs({
    user,
    bind: { redis: dataDirectory, "redis-socket": dirname(socketPath) },
    argv: [
      "/usr/bin/redis-server",
      ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]),
    ],
    pdeathsig: "TERM",
  });
  options.onSpawn?.(child);
  const log = options.onLine ?? (() => {});
  await readyLine(child, "redis-server", /eady to accept connections/, START_BOUND_MS, log);
  return {
    url: `unix:${socketPath}`,
    child,
    stop: () =>
      endChild(child, [
        { signal: "SIGTERM", boundMs: 15_000 },
        { signal: "SIGKILL", boundMs: 5000 },
      ]),
  };
}
