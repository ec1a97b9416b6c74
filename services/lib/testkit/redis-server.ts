import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Redis } from "ioredis";

/** A Redis of a test's own, on a Unix socket in a temporary folder. */
export interface RedisServer {
  url: string;
  process: ChildProcess;
  stop(): Promise<void>;
}

/** Starts Debian's redis-server; rejects when it ends or does not serve within 10 s. */
export async function startRedisServer(): Promise<RedisServer> {
  const folder = await mkdtemp(join(tmpdir(), "cloister-redis-"));
  const socket = join(folder, "redis.sock");
  const server = spawn(
    "redis-server",
    ["--port", "0", "--unixsocket", socket, "--dir", folder, "--save", "", "--appendonly", "no"],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const ended = new Promise<void>((resolve) => server.once("exit", () => resolve()));
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("redis-server did not start in 10 s")), 10_000);
    server.once("error", reject);
    server.once("exit", (code) => reject(new Error(`redis-server ended with ${code}`)));
    server.stdout.on("data", (text: Buffer) => {
      if (!text.includes("eady to accept connections") && !text.includes("now ready")) return;
      clearTimeout(timer);
      resolve();
    });
  });
  return {
    url: `unix:${socket}`,
    process: server,
    async stop() {
      server.kill("SIGKILL");
      await ended;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Resolves when so many clients of the Redis that `redis` leads to wait for a job, which only word of one ends. */
export async function clientsWait(redis: Redis, count: number): Promise<void> {
  const line = new RegExp(`^blocked_clients:${count}\\r$`, "m");
  while (!line.test(await redis.info("clients")));
}
