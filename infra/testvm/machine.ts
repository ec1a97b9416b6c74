import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, writeFileSync } from "node:fs";
import { getPriority } from "node:os";
import type { Readable } from "node:stream";
import { testMachineArtefacts } from "./artefacts.ts";
import { TestMachineError } from "./failure.ts";
import { type Job, type PreparedJob, prepareJob, shareSerial } from "./job.ts";
import { installPrograms } from "./packages.ts";

export interface MachineOptions {
  /** Memory of the test machine. Its root and /tmp are part of it. */
  memoryMiB?: number;
  /** Emulated processors. */
  cpus?: number;
  /** From the start of QEMU to its end, seconds. */
  boundSeconds?: number;
  /** What the command prints, as it comes. */
  onStdout?: (chunk: Buffer) => void;
  onStderr?: (chunk: Buffer) => void;
  /** What the kernel prints. */
  onConsole?: (chunk: Buffer) => void;
  /** Preparations that take a while. */
  tell?: (line: string) => void;
  /** Ends the machine; the promise then fails with the signal's reason. */
  signal?: AbortSignal;
}

export interface MachineResult {
  /** As a shell tells it: 128 + signal, 127 for a program that is not there, 126 for one that cannot be run. */
  exitCode: number;
  /** From the start of QEMU until the command began. */
  bootMs: number;
  /** From the start of QEMU to its end. */
  totalMs: number;
}

export const DEFAULTS = { memoryMiB: 1024, cpus: 2, boundSeconds: 120 } as const;

/** How much of the console an error shows, characters. */
const CONSOLE_TAIL = 4000;

/**
 * The kernel's only settings: the console for errors, an end of the machine for panics, no cgroup v1 at all, and no panic when its timer seems not to work
 * because the host had no time for the emulator just then.
 */
const KERNEL_COMMAND_LINE = "console=ttyS0 quiet panic=-1 cgroup_no_v1=all no_timer_check";

/**
 * One thread emulates all processors in turn: it takes a quarter less processor time than a thread for each, which wait for one another, and no two of them change
 * anything at once (README.md, "What it is not").
 */
const ACCELERATOR = "tcg,thread=single";

/** All that QEMU has, but page tables of four levels, as on most servers: each access of a guest in it is translated by both its own and KVM's. */
const PROCESSOR = "max,la57=off";

/** Descriptors that QEMU inherits; the first three are the usual ones. */
const FIRST_DISK_FD = 8;
const FD = { console: 3, control: 4, out: 5, err: 6, initramfs: 7 } as const;

/**
 * Boots the machine, runs the job's command in it, and waits until both have ended. Nothing is left afterwards: no process, file or socket, also
 * when this process is killed. Fails with a TestMachineError when the machine itself fails or the time is over; a command that fails is a result.
 */
export async function runInTestMachine(
  job: Job,
  options: MachineOptions = {},
): Promise<MachineResult> {
  const tell = options.tell ?? (() => {});
  options.signal?.throwIfAborted();
  if (process.getuid?.() !== 0 || process.arch !== "x64") {
    throw new TestMachineError(
      "The test machine needs root on an x86_64 machine.",
      "Run this as root, on such a machine.",
    );
  }
  await installPrograms(tell);
  const artefacts = await testMachineArtefacts(tell);
  const prepared = await prepareJob(job, artefacts);
  try {
    options.signal?.throwIfAborted();
    return await runQemu(artefacts.kernel, prepared, options);
  } finally {
    for (const descriptor of [prepared.initramfs, ...prepared.disks]) closeSync(descriptor);
  }
}

/** A process of a session of its own is weighed by the nice value of that session (sched(7), autogroups), and so would forget this one's. */
function keepNice({ pid }: ChildProcess): void {
  const nice = getPriority();
  if (pid === undefined || nice === 0) return;
  try {
    writeFileSync(`/proc/${pid}/autogroup`, String(nice));
  } catch {
    // A kernel without autogroups goes by the process's own value; one that has ended needs none.
  }
}

async function runQemu(
  kernel: string,
  prepared: PreparedJob,
  options: MachineOptions,
): Promise<MachineResult> {
  const began = performance.now();
  const sinceStart = () => performance.now() - began;
  const child = spawn("setpriv", qemuCommand(kernel, prepared.disks.length, options), {
    // Order as in FD.
    stdio: [
      "ignore",
      "pipe",
      "pipe",
      "pipe",
      "pipe",
      "pipe",
      "pipe",
      prepared.initramfs,
      ...prepared.disks,
    ],
    // A Ctrl-C of the terminal reaches this process alone, which then ends QEMU.
    detached: true,
  });
  keepNice(child);
  const control = collect(child, FD.control);
  const consoleText = collect(child, FD.console, options.onConsole);
  const complaints = [collect(child, 1), collect(child, 2)];
  streamOf(child, FD.out)?.on("data", options.onStdout ?? (() => {}));
  streamOf(child, FD.err)?.on("data", options.onStderr ?? (() => {}));

  let bootMs: number | undefined;
  streamOf(child, FD.control)?.once("data", () => {
    bootMs = sinceStart();
  });
  const boundSeconds = options.boundSeconds ?? DEFAULTS.boundSeconds;
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, boundSeconds * 1000);
  const abort = () => child.kill("SIGKILL");
  options.signal?.addEventListener("abort", abort, { once: true });
  try {
    await closed(child);
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", abort);
  }
  options.signal?.throwIfAborted();
  const tail = consoleText().slice(-CONSOLE_TAIL).trim();
  if (late) {
    throw new TestMachineError(
      `The test machine was ended after ${boundSeconds} s${tail === "" ? "" : `. Its console:\n${tail}`}`,
      "Give it more time with --timeout, or find what hangs.",
    );
  }
  const exitCode = /^exit (\d{1,3})$/m.exec(control())?.[1];
  if (exitCode === undefined || bootMs === undefined) {
    const said = [...complaints.map((text) => text().trim()), tail].filter((text) => text !== "");
    throw new TestMachineError(
      `The test machine ended before its command did.\n${said.join("\n")}`,
      "The lines above tell why; more memory (--memory) helps when it ran out of it.",
    );
  }
  return { exitCode: Number(exitCode), bootMs, totalMs: sinceStart() };
}

function qemuCommand(kernel: string, disks: number, options: MachineOptions): string[] {
  const port = (name: "control" | "out" | "err") => [
    "-chardev",
    `socket,id=${name},fd=${FD[name]}`,
    "-device",
    `virtserialport,chardev=${name},name=${name}`,
  ];
  const disk = (index: number) => [
    "-drive",
    `if=none,id=disk${index},format=raw,readonly=on,file=/proc/self/fd/${FIRST_DISK_FD + index}`,
    "-device",
    `virtio-blk-pci,drive=disk${index},serial=${shareSerial(index)}`,
  ];
  return [
    // QEMU ends with this process, whatever ends that, and holds no capability: it reads descriptors it was given.
    ...["--pdeathsig=KILL", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"],
    ...["qemu-system-x86_64", "-no-user-config", "-nodefaults", "-no-reboot"],
    ...["-display", "none", "-monitor", "none", "-nic", "none"],
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ...["-machine", "q35", "-accel", ACCELERATOR, "-cpu", PROCESSOR],
    ...["-smp", String(options.cpus ?? DEFAULTS.cpus)],
    ...["-m", `${options.memoryMiB ?? DEFAULTS.memoryMiB}M`],
    ...["-kernel", kernel, "-initrd", `/proc/self/fd/${FD.initramfs}`],
    ...["-append", KERNEL_COMMAND_LINE],
    ...["-chardev", `socket,id=console,fd=${FD.console}`, "-serial", "chardev:console"],
    ...["-device", "virtio-serial-pci", ...port("control"), ...port("out"), ...port("err")],
    ...Array.from({ length: disks }, (_, index) => disk(index)).flat(),
  ];
}

const streamOf = (child: ChildProcess, descriptor: number): Readable | undefined =>
  (child.stdio[descriptor] as Readable | null | undefined) ?? undefined;

/** Keeps the end of what comes on a descriptor; gives a function that reads it. */
function collect(
  child: ChildProcess,
  descriptor: number,
  also?: (chunk: Buffer) => void,
): () => string {
  let text = "";
  streamOf(child, descriptor)?.on("data", (chunk: Buffer) => {
    text = (text + chunk.toString("latin1")).slice(-4 * CONSOLE_TAIL);
    also?.(chunk);
  });
  return () => text;
}

/** Resolves when the process has ended and all it wrote was read. */
function closed(child: ChildProcess): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  child.once("close", () => resolve());
  child.once("error", (error) =>
    reject(
      new TestMachineError(
        `QEMU could not be started: ${error.message}`,
        "Install util-linux and qemu-system-x86.",
      ),
    ),
  );
  return promise;
}
