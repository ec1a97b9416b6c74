import { createServer, type Server } from "node:net";
import { Failure } from "../failure.ts";

/**
 * One `up` per data folder. The lock is a socket in the abstract name space (unix(7)): the kernel takes it back however the holder
 * ends, so there is no stale lock. Nothing is ever sent over it.
 */
export async function lockInstance(id: string, data: string): Promise<Server> {
  const server = createServer((socket) => socket.destroy());
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen({ path: `\0cloister-up-${id}` }, resolve);
  try {
    await promise;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    throw new Failure(
      `Cloister already runs on ${data}.`,
      "Stop it with ./cloister down, or name another folder with --data.",
    );
  }
  // The lock alone must not keep a process alive that has nothing left to do.
  server.unref();
  return server;
}
