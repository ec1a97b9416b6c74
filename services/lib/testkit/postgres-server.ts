import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { startPostgres } from "#embedded/postgres";
import { placePostgresData, scratchFolder } from "./postgres-data.ts";

/** A PostgreSQL of a test's own, empty, on a Unix socket in a temporary folder. */
export interface PostgresServer {
  url: string;
  stop(): Promise<void>;
}

/** Starts the embedded PostgreSQL as its unprivileged account; needs root, as Cloister's own start does. */
export async function startPostgresServer(): Promise<PostgresServer> {
  const folder = mkdtempSync(join(scratchFolder(), "cloister-postgres-"));
  // The server's account must be able to pass.
  chmodSync(folder, 0o755);
  const dataDirectory = join(folder, "data");
  await placePostgresData(dataDirectory);
  const server = await startPostgres({
    dataDirectory,
    socketDirectory: join(folder, "socket"),
    user: "cloister-db",
  });
  return {
    url: server.url,
    async stop() {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
