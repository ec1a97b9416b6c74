import { execFile } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { ProcessLauncher, type ServingSandbox } from "../../worker/sandbox/index.ts";
import type { Runsc } from "../host/runsc.ts";
import { firstAnswer } from "./first-answer.ts";
import type { Ground } from "./ground.ts";
import { holdMountNamespace, type MountNamespace } from "./mount-namespace.ts";
import type { Mode } from "./rounds.ts";
import { factsOfChildren } from "./run-facts.ts";

const run = promisify(execFile);

/** Where a v2 hierarchy is mounted beside v1. */
const UNIFIED = "/sys/fs/cgroup/unified";
const BLIND = `umount ${UNIFIED}; exec "$@"`;

interface Peer {
  name: string;
  /** What all its sandboxes need, before each of them. */
  before?(): Promise<void>;
  argvOf(id: string): string[];
  /** What is left of a sandbox when its program has ended. */
  remove?(id: string): Promise<void>;
  /** Whose shmem is its own memory, which processes of one sandbox share. */
  shmem?: "own";
  close?(): Promise<void>;
}

/** A sandbox made by somebody else's program, with the frames' socket as file descriptor 3. */
function peerMode(ground: Ground, peer: Peer): Mode {
  const { name, before, argvOf, remove, shmem, close } = peer;
  let next = 1;
  let id = "";
  let serving: ServingSandbox | undefined;
  const launcher = new ProcessLauncher(() => argvOf(id));
  return {
    name,
    ...(before ? { before } : {}),
    async measured() {
      id = `cloister-bench-${process.pid}-${next++}`;
      const bundle = { digest: ground.bundle.digest, path: "/fn" };
      serving = await firstAnswer(
        await launcher.launch(ground.shape, "bench", bundle, ground.spec),
        ground,
      );
    },
    facts: () => factsOfChildren(serving as ServingSandbox, ground, shmem),
    async after() {
      await serving?.end();
      serving = undefined;
      await remove?.(id);
    },
    ...(close ? { close } : {}),
  };
}

/** runc or crun: what `spec` makes of it (all namespaces but user, no capabilities, seccomp off), with our image and function. */
export function ociMode(program: "runc" | "crun", ground: Ground): Mode {
  const folder = join(ground.scratch, program);
  const state = join(folder, "state");
  mkdirSync(state, { recursive: true });
  writeFileSync(join(folder, "config.json"), JSON.stringify(ociConfig(ground, program === "runc")));
  // crun 1.8 refuses a v2 hierarchy with controllers beside v1, even when told to use none: there it gets a view without it.
  const blind =
    program === "crun" && existsSync(UNIFIED)
      ? ["unshare", "--mount", "sh", "-c", BLIND, "sh"]
      : [];
  const global = ["--root", state, ...(program === "crun" ? ["--cgroup-manager=disabled"] : [])];
  const command = [...blind, `/usr/${program === "runc" ? "s" : ""}bin/${program}`, ...global];
  return peerMode(ground, {
    name: program,
    argvOf: (id) => [...command, "run", "--preserve-fds=1", "--bundle", folder, id],
    remove: (id) => removeContainer(command, state, id),
  });
}

/** Ends what runs and removes its state and cgroups; that it is gone already is no failure. */
async function removeContainer(command: string[], state: string, id: string): Promise<void> {
  const [program = "", ...rest] = command;
  await run(program, [...rest, "delete", "--force", id]).catch(() => {});
  rmSync(join(state, id), { recursive: true, force: true });
}

/** gVisor, with the same image, function and user as runc, and with runc's limits where it can have them. */
export function runscMode({ path, global, unlimited }: Runsc, ground: Ground): Mode {
  const folder = join(ground.scratch, "runsc");
  const state = join(folder, "state");
  mkdirSync(state, { recursive: true });
  const config = ociConfig(ground, unlimited === undefined);
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  const command = [path, "--root", state, ...global];
  // It leaves a network namespace mounted below its state for its next sandbox.
  let mounts: MountNamespace | undefined;
  const inside = (): string[] => [...(mounts?.enter ?? []), ...command];
  return peerMode(ground, {
    name: "runsc",
    async before() {
      if (mounts) return;
      mounts = await holdMountNamespace();
      ground.bystanders.add(mounts.pid);
    },
    argvOf: (id) => [...inside(), "run", "--pass-fd=3:3", "--bundle", folder, id],
    remove: (id) => removeContainer(inside(), state, id),
    // Its kernel keeps all memory of the programs in it in one memfd.
    shmem: "own",
    close: async () => mounts?.close(),
  });
}

function ociConfig(ground: Ground, limited: boolean): object {
  const options = ["nosuid", "noexec", "nodev"];
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid: 1000, gid: 1000 },
      args: ground.argv,
      env: Object.entries(ground.env).map(([name, value]) => `${name}=${value}`),
      cwd: "/",
      capabilities: { bounding: [], effective: [], permitted: [], inheritable: [], ambient: [] },
      noNewPrivileges: true,
    },
    root: { path: ground.rootfs, readonly: true },
    hostname: "bench",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc", options },
      {
        destination: "/dev",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "mode=755", "size=65536k"],
      },
      {
        destination: "/tmp",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "nodev", "mode=1777", "size=64m"],
      },
      {
        destination: "/fn",
        type: "bind",
        source: ground.bundle.path,
        options: ["bind", "ro", "nosuid", "nodev"],
      },
    ],
    linux: {
      // crun without cgroups refuses limits.
      ...(limited ? { resources: limitsOf(ground) } : {}),
      namespaces: ["pid", "network", "ipc", "uts", "mount"].map((type) => ({ type })),
      maskedPaths: ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"],
      readonlyPaths: ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"],
    },
  };
}

const limitsOf = ({ shape }: Ground): object => ({
  memory: { limit: shape.memoryMb * 1024 * 1024 },
  pids: { limit: shape.pids },
});

/** All namespaces, no cgroup, no seccomp. */
export function bwrapMode(ground: Ground): Mode {
  const env = Object.entries(ground.env).flatMap(([name, value]) => ["--setenv", name, value]);
  return peerMode(ground, {
    name: "bwrap",
    argvOf: () => [
      ...["/usr/bin/bwrap", "--unshare-all", "--die-with-parent", "--clearenv", ...env],
      ...["--uid", "1000", "--gid", "1000", "--ro-bind", ground.rootfs, "/"],
      ...["--ro-bind", ground.bundle.path, "/fn", "--proc", "/proc"],
      ...["--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/", "--", ...ground.argv],
    ],
  });
}
