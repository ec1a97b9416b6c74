import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

/** The source tree: what services and binaries are started from. */
export const PROJECT_ROOT = resolve(import.meta.dirname, "../..");

/**
 * Mount point, empty on the machine itself. Each process started here sees a file system of its own below it, with only what was
 * bound; it goes with the process.
 */
const MOUNT_POINT = "/run/cloister/ns";

/** Where a process of `spawnAs` sees the source tree, whatever the rights of the folders above it are. */
export const APP = `${MOUNT_POINT}/app`;

/** Where a process of `spawnAs` sees what was bound as `name`. */
export const bound = (name: string): string => join(MOUNT_POINT, name);

/** The same file as seen by a process of `spawnAs`; the path itself when it is not below the source tree. */
export const inApp = (path: string): string =>
  path.startsWith(`${PROJECT_ROOT}/`) ? join(APP, path.slice(PROJECT_ROOT.length)) : path;

export interface SpawnAs {
  /** Name of an account of this machine. */
  user: string;
  /** Folders of the machine, by the name they get under `bound(name)`. The source tree is always bound as `app`. */
  bind?: Record<string, string>;
  argv: string[];
  /** The whole environment: nothing is inherited. */
  env?: Record<string, string>;
  /** Signal the process gets when the thread that started it ends, e.g. by kill -9. */
  pdeathsig?: "KILL" | "TERM" | "INT" | "QUIT";
  stdio?: SpawnOptions["stdio"];
}

/**
 * Run by sh as root inside the new mount namespace: $1 is the mount point, then `from name` pairs up to `--`, then the command. Sources
 * never lie below the mount point, so the tmpfs hides none.
 */
const SCRIPT = `set -e
point=$1; shift
mount -t tmpfs -o size=64k,mode=0755,nosuid,nodev tmpfs "$point"
while [ "$1" != -- ]; do
  mkdir -p "$point/$2"
  mount --bind "$1" "$point/$2"
  shift 2
done
shift
cd /
exec "$@"`;

/**
 * Starts a program as an unprivileged user, without capabilities and without a way to get any, in a session of its own (a Ctrl-C of the
 * terminal does not reach it). The child's pid is the program's own. Throws one sentence when the user does not exist.
 */
export function spawnAs(options: SpawnAs): ChildProcess {
  const { uid, gid } = account(options.user);
  if (!existsSync(MOUNT_POINT)) mkdirSync(MOUNT_POINT, { recursive: true, mode: 0o755 });
  const binds = Object.entries({ app: PROJECT_ROOT, ...options.bind }).flatMap(([name, from]) => [
    resolve(from),
    name,
  ]);
  // The credentials change clears the signal (PR_SET_PDEATHSIG(2const)), so setpriv sets it last.
  const drop = [
    "setpriv",
    `--reuid=${uid}`,
    `--regid=${gid}`,
    "--init-groups",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all",
    ...(options.pdeathsig ? [`--pdeathsig=${options.pdeathsig}`] : []),
    "--",
  ];
  return spawn(
    "unshare",
    [
      "--mount",
      "--propagation=private",
      "--",
      "sh",
      "-c",
      SCRIPT,
      "sh",
      MOUNT_POINT,
      ...binds,
      "--",
      ...drop,
      ...options.argv,
    ],
    {
      stdio: options.stdio ?? ["ignore", "pipe", "pipe"],
      detached: true,
      env: {
        PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        LANG: "C.UTF-8",
        ...options.env,
      },
    },
  );
}

/** Numeric ids of an account in /etc/passwd. */
export function account(user: string): { uid: number; gid: number } {
  for (const line of readFileSync("/etc/passwd", "utf8").split("\n")) {
    const [name, , uid, gid] = line.split(":");
    if (name === user) return { uid: Number(uid), gid: Number(gid) };
  }
  throw new Error(
    `There is no user ${user} on this machine. Run ./cloister setup, which makes it.`,
  );
}
