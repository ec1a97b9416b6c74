import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { startTimeOf, waitGone } from "#embedded/process-life";
import { hostProgram } from "./host-program.ts";
import type { Job } from "./job.ts";
import { type MachineOptions, runInTestMachine } from "./machine.ts";
import { CACHE } from "./scratch.ts";

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "cloister-testvm-test-"));
});
after(() => rmSync(folder, { recursive: true, force: true }));

async function output(job: Job, options: MachineOptions = {}) {
  let stdout = "";
  let stderr = "";
  const { exitCode } = await runInTestMachine(job, {
    onStdout: (chunk) => {
      stdout += chunk.toString("utf8");
    },
    onStderr: (chunk) => {
      stderr += chunk.toString("utf8");
    },
    ...options,
  });
  return { exitCode, stdout, stderr };
}

/** QEMU processes whose parent is `parent`, as pid and start time. */
function machinesOf(parent: number): { pid: number; started: string }[] {
  const children = `/proc/${parent}/task/${parent}/children`;
  return hostText(children)
    .split(" ")
    .filter((pid) => pid !== "" && hostText(`/proc/${pid}/comm`).startsWith("qemu-system"))
    .map((pid) => ({ pid: Number(pid), started: startTimeOf(Number(pid)) ?? "" }));
}

function hostText(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

describe("the test machine", () => {
  it("has cgroup v2 alone with every controller, namespaces, overlayfs and pivot_root", async () => {
    const script = join(folder, "facts.sh");
    writeFileSync(script, FACTS);
    const { exitCode, stdout, stderr } = await output({
      command: ["sh", "/facts.sh"],
      files: [{ host: script, guest: "/facts.sh" }],
    });
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(stdout.trim().split("\n"), [
      "hierarchies: cgroup2",
      "controllers: cpu cpuset io memory pids",
      "over memory.max: 137",
      "pivoted",
      "user namespace: 0",
      "layered",
      "landlock",
    ]);
  });

  it("runs KVM guests at CPL 0 and with nested paging", async () => {
    const program = join(folder, "kvm-smoke");
    const source = join(import.meta.dirname, "programs/kvm-smoke.c");
    await hostProgram("cc", ["-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], {
      remedy: "Install gcc and libc6-dev.",
    });
    const { exitCode, stdout, stderr } = await output({
      command: ["sh", "-c", "/kvm-smoke && cat /sys/module/kvm_amd/parameters/npt"],
      files: [{ host: program, guest: "/kvm-smoke" }],
    });
    assert.equal(stderr, "");
    assert.equal(stdout, "real ok\nlong ok\nsyscall ok\nY\n");
    assert.equal(exitCode, 0);
  });

  it("keeps arguments, variables, streams, exit code and read-only shares as they were given", async () => {
    const shared = join(folder, "a 'shared' folder");
    mkdirSync(shared);
    writeFileSync(join(shared, "file"), "content");
    const guest = "/srv/it's here";
    const { exitCode, stdout, stderr } = await output({
      command: ["sh", "-c", SHELL_CHECK, "name", "it's $HOME", 'two\nlines"'],
      env: { TEXT: "a'b\\c `d`" },
      cwd: guest,
      shares: [{ host: shared, guest }],
    });
    const lines = ["it's $HOME", "two", 'lines"', "a'b\\c `d`", "content", "read-only"];
    assert.equal(stdout, `${lines.join("\n")}\n${"x".repeat(3 << 20)}`);
    assert.equal(stderr, "to stderr\n");
    assert.equal(exitCode, 139);
  });

  it("ends within its time and shows the kernel's words when it panics", async () => {
    await assert.rejects(
      runInTestMachine({ command: ["sleep", "1000"] }, { boundSeconds: 8 }),
      /was ended after 8 s/,
    );
    await assert.rejects(
      runInTestMachine({ command: ["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 1000"] }),
      /ended before its command did[\s\S]*sysrq triggered crash/,
    );
    assert.deepEqual(machinesOf(process.pid), []);
  });

  it("leaves nothing when it is interrupted or killed", async () => {
    for (const [signal, code] of [
      ["SIGINT", 130],
      ["SIGKILL", null],
    ] as const) {
      const runner = spawn(
        process.execPath,
        [
          join(import.meta.dirname, "run.ts"),
          "--",
          "sh",
          "-c",
          "sleep 1000 & echo begun; sleep 1000",
        ],
        { stdio: ["ignore", "pipe", "inherit"] },
      );
      await firstOutput(runner);
      const machines = machinesOf(runner.pid ?? 0);
      assert.equal(machines.length, 1);
      const ended = new Promise((resolve) => runner.once("exit", resolve));
      runner.kill(signal);
      assert.equal(await ended, code);
      for (const { pid, started } of machines) assert.ok(await waitGone(pid, started, 30_000));
      const mine = readdirSync(CACHE).filter((name) => name.startsWith(`scratch-${runner.pid}-`));
      assert.deepEqual(mine, []);
    }
  });

  it("refuses what it cannot do with one sentence", async () => {
    const refusals: [Job, RegExp][] = [
      [{ command: [] }, /There is no command/],
      [{ command: ["a\0b"] }, /NUL/],
      [{ command: ["a"], env: { "A B": "" } }, /no name of a variable/],
      [{ command: ["a"], files: [{ host: "/nonexistent", guest: "/a" }] }, /is not there/],
      [{ command: ["a"], files: [{ host: "/etc", guest: "/a" }] }, /is not a regular file/],
      [{ command: ["a"], shares: [{ host: "/etc/passwd", guest: "/a" }] }, /is not a folder/],
      [{ command: ["a"], shares: [{ host: "/etc", guest: "/../a" }] }, /cannot be a path/],
      [{ command: ["a"], shares: [{ host: "/etc", guest: "/" }] }, /cannot be a path/],
    ];
    for (const [job, sentence] of refusals) await assert.rejects(runInTestMachine(job), sentence);
  });
});

function firstOutput(child: ChildProcess): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  child.stdout?.once("data", () => resolve());
  child.once("exit", (code) => reject(new Error(`ended with ${code} before it printed anything`)));
  return promise;
}

const SHELL_CHECK = `
printf '%s\\n' "$1" "$2" "$TEXT"
cat file; echo
touch file 2>/dev/null || echo read-only
head -c ${3 << 20} /dev/zero | tr '\\0' x
echo to stderr >&2
sleep 1000 &
kill -SEGV $$
`;

const FACTS = `
set -eu
cd /tmp
echo "hierarchies: $(grep -o ' - cgroup[0-9]* ' /proc/self/mountinfo | tr -d ' -' | tr '\\n' ' ' | sed 's/ $//')"
cd /sys/fs/cgroup
wanted=
for one in cpu cpuset io memory pids; do
  grep -qw "$one" cgroup.subtree_control && wanted="$wanted $one"
done
echo "controllers:$wanted"
mkdir limited
echo 2M >limited/memory.max
echo 0 >limited/memory.swap.max
code=0
# tail keeps all of it in memory.
sh -c 'echo 0 >limited/cgroup.procs; head -c 40000000 /dev/zero | tail -c 40000000 >/dev/null' 2>/dev/null || code=$?
echo "over memory.max: $code"
cd /tmp
mkdir root lower upper work merged
echo layered >lower/file
unshare -m sh -c '
  mount -t tmpfs tmpfs root
  mkdir root/old root/bin
  cp /bin/busybox root/bin/sh
  cd root
  pivot_root . old
  exec /bin/sh -c "echo pivoted"'
echo "user namespace: $(unshare --user --map-root-user id -u)"
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged
cat merged/file
grep -o landlock /sys/kernel/security/lsm
`;
