import { existsSync } from "node:fs";
import type { ShownTable } from "#comparison/tables";
import { figure } from "#report/markup";
import { type BootReport, benchBoot, MODE_NAMES, type ModeReport } from "../bench/boot.ts";
import { benchOverhead, type OverheadReport } from "../bench/overhead.ts";
import type { WorkloadReport } from "../bench/overhead-figures.ts";
import type { HostFacts } from "../host/facts.ts";
import { type HostSurface, hostSurface } from "./host-surface.ts";
import { CLAIMS, type ClaimRow, SOURCES } from "./textbook-claims.ts";

/** What is said, beside what this machine shows. */
export interface TextbookReport {
  host: HostFacts;
  n: number;
  surface: HostSurface;
  boot: BootReport;
  overhead: OverheadReport;
  rows: { property: string; cells: Record<Column, string> }[];
  sources: readonly string[];
}

const COLUMNS = [
  "vm",
  "container",
  "process",
  "ours_container",
  "ours_microvm",
  "runc",
  "crun",
  "bwrap",
  "runsc",
] as const;
type Column = (typeof COLUMNS)[number];
const TITLES: Record<Column, string> = {
  vm: "a VM, it is said",
  container: "a container, it is said",
  process: "bare process",
  ours_container: "Cloister: container",
  ours_microvm: "Cloister: micro-VM",
  runc: "runc",
  crun: "crun",
  bwrap: "bwrap",
  runsc: "gVisor (runsc)",
};

const MODES = [
  ...["process", "container-cold", "container-prepared", "container-warm"],
  ...[
    "microvm-cold",
    "microvm-restored",
    "microvm-pooled",
    "microvm-warm",
    "runc",
    "crun",
    "bwrap",
    "runsc",
  ],
].filter((mode) => MODE_NAMES.includes(mode));
const WORKLOADS = ["cpu", "cpu-python", "memory", "syscalls"];
const IMAGE = "node24";

export interface TextbookOptions {
  n: number;
  signal: AbortSignal;
  onProgress(what: string, done: number, of: number): void;
}

/** Measures all of it: starts and then overhead, each with its modes interleaved. Needs root. */
export async function measureTextbook({
  n,
  signal,
  onProgress,
}: TextbookOptions): Promise<TextbookReport> {
  const surface = hostSurface(IMAGE);
  const boot = await benchBoot({
    runtime: IMAGE,
    modes: MODES,
    rounds: n,
    signal,
    onRound: (done, of) => onProgress("starts", done, of),
  });
  const overhead = await benchOverhead({
    workloads: WORKLOADS,
    rounds: n,
    signal,
    onRound: (done, of) => onProgress("overhead", done, of),
  });
  return {
    host: boot.host,
    n,
    surface,
    boot,
    overhead,
    rows: textbookRows({ surface, boot, overhead }, existsSync("/dev/kvm")),
    sources: SOURCES,
  };
}

type Measured = Pick<TextbookReport, "surface" | "boot" | "overhead">;
type Cells = Partial<Record<Exclude<Column, "vm" | "container">, string>>;

const NOBODY = "-";
const PEERS = ["runc", "crun", "bwrap", "runsc"] as const;

/** Cells that nothing was measured for say so by a dash. */
export function textbookRows(
  { surface, boot, overhead }: Measured,
  kvm: boolean,
): TextbookReport["rows"] {
  const mode = (name: string): ModeReport | undefined =>
    boot.modes.find((one) => one.mode === name && one.p50_ms !== null);
  const workload = (name: string): WorkloadReport | undefined =>
    overhead.workloads.find((one) => one.name === name);
  const there = (peer: string, text: string): string => (mode(peer) ? text : NOBODY);
  const peers = (tell: (name: string) => string): Cells =>
    Object.fromEntries(PEERS.map((peer) => [peer, mode(peer) ? tell(peer) : NOBODY]));
  const time = (name: string): string => {
    const found = mode(name);
    return found ? `${figure(found.p50_ms)} / ${figure(found.p99_ms)} ms` : NOBODY;
  };
  const all = (tell: (one: ModeReport) => string): Cells => {
    const cell = (name: string): string => {
      const found = mode(name);
      return found ? tell(found) : NOBODY;
    };
    return {
      process: cell("process"),
      ours_container: cell("container-cold"),
      ours_microvm: [
        ["cold", "microvm-cold"],
        ["restored", "microvm-restored"],
      ]
        .map(([word, name = ""]) => `${cell(name)} ${word}`)
        .join(", "),
      ...peers(cell),
    };
  };
  const over = (name: string, least: boolean): Cells => {
    const found = workload(name);
    const [container, microvm] = least
      ? [found?.container_least_ratio, found?.microvm_least_ratio]
      : [found?.container_ratio, found?.microvm_ratio];
    return { process: "0", ours_container: percent(container), ours_microvm: percent(microvm) };
  };
  const calls = surface.kernel_calls === null ? "all" : `all ${surface.kernel_calls}`;
  const joined = (one: Cells, other: Cells): Cells => ({
    process: "0",
    ours_container: `${one.ours_container} / ${other.ours_container}`,
    ours_microvm: `${one.ours_microvm} / ${other.ours_microvm}`,
  });
  const row = (property: string, claim: ClaimRow, cells: Cells): TextbookReport["rows"][number] => {
    const [vm, container] = CLAIMS[claim];
    const own: Cells = kvm ? cells : { ...cells, ours_microvm: "no /dev/kvm here" };
    const filled = Object.fromEntries(
      COLUMNS.map((column) => [column, (own as Partial<Record<Column, string>>)[column] ?? NOBODY]),
    ) as Record<Column, string>;
    return { property, cells: { ...filled, vm, container } };
  };
  return [
    row("kernel", "kernel", {
      process: "the host's",
      ours_container: "the host's",
      ours_microvm: "none in the guest; the host's for its monitor",
      ...peers(() => "the host's"),
      runsc: there("runsc", "gVisor's, a program of the host's"),
    }),
    row("isolation", "isolation", {
      process: "none",
      ours_container: "namespaces, control groups, seccomp, Landlock, uid of its own",
      ours_microvm: "CPL 3 of a KVM machine, its monitor in all walls of a container",
      runc: there("runc", "namespaces, control groups"),
      crun: there("crun", "namespaces"),
      bwrap: there("bwrap", "namespaces"),
      runsc: there("runsc", "gVisor's kernel serves its calls, itself in namespaces and seccomp"),
    }),
    row("host system calls in reach", "calls", {
      process: calls,
      ours_container: String(surface.container_calls),
      ours_microvm: `0; its monitor ${surface.monitor_calls}`,
      // As bench configures them: with what their own spec makes, which has no filter.
      ...peers(() => `${calls}, no filter set`),
      runsc: there("runsc", "those of gVisor's own filter, not counted"),
    }),
    row("namespaces of its own", "namespaces", {
      ...all(namespacesOf),
      ours_microvm: namespacesOf(mode("microvm-restored")),
    }),
    row("first answer, booted, p50 / p99", "cold", {
      process: time("process"),
      ours_container: time("container-cold"),
      ours_microvm: time("microvm-cold"),
      ...peers(time),
    }),
    row("first answer, out of what was ready, p50 / p99", "ready", {
      ours_container: `${time("container-prepared")} prepared`,
      ours_microvm: `${time("microvm-restored")} restored; ${time("microvm-pooled")} waiting`,
    }),
    row("a later answer, p50 / p99", "warm", {
      ours_container: time("container-warm"),
      ours_microvm: time("microvm-warm"),
    }),
    row(
      "computing, JavaScript / Python, beyond a process",
      "cpu",
      joined(over("cpu", true), over("cpu-python", true)),
    ),
    row("touching 128 MiB of fresh memory, beyond a process", "memoryTouch", over("memory", true)),
    row("5000 system calls, beyond a process", "calls5000", over("syscalls", true)),
    row(
      "memory of its own after the first answer",
      "private",
      all(({ private_kib }) => mib(private_kib)),
    ),
    row(
      "memory it shares",
      "shared",
      all(({ shared_kib }) => mib(shared_kib)),
    ),
    row("image", "image", {
      process: NOBODY,
      ours_container: megabytes(surface.image_bytes),
      ours_microvm: `${megabytes(surface.image_bytes)}, the same`,
      ...peers(() => `${megabytes(surface.image_bytes)}, the same`),
    }),
    row(
      "page faults until the first answer",
      "faults",
      all(({ page_faults }) => figure(page_faults)),
    ),
    row(
      "context switches until the first answer",
      "switches",
      all(({ context_switches }) => figure(context_switches)),
    ),
    row("exits until the first answer", "exits", {
      ours_microvm: ["cold", "restored"]
        .map((word) => `${exitsOf(mode(`microvm-${word}`))} ${word}`)
        .join("; "),
    }),
    row("cost of an exit", "exitCost", {
      ours_microvm: exitCost(workload("syscalls"), workload("memory")),
    }),
  ];
}

/** The same as a table of the columns that something was measured for. */
export function textbookTable({ rows }: Pick<TextbookReport, "rows">): ShownTable {
  const shown = COLUMNS.filter((column) => rows.some(({ cells }) => cells[column] !== NOBODY));
  return {
    columns: [{ title: "" }, ...shown.map((column) => ({ title: TITLES[column] }))],
    rows: rows.map(({ property, cells }) => [property, ...shown.map((column) => cells[column])]),
  };
}

const namespacesOf = (mode: ModeReport | undefined): string =>
  mode?.namespaces
    ? [mode.namespaces.length, ...mode.namespaces].join(" ").replace(" ", ": ")
    : NOBODY;

const percent = (ratio: number | null | undefined): string =>
  ratio === null || ratio === undefined
    ? NOBODY
    : `${ratio < 1 ? "" : "+"}${((ratio - 1) * 100).toFixed(1)} %`;
const mib = (kib: number | undefined): string =>
  kib === undefined ? NOBODY : `${figure(kib / 1024)} MiB`;
const megabytes = (bytes: number): string => `${figure(bytes / 1e6)} MB`;

const REASONS: Record<string, string> = {
  syscall: "system calls",
  fault: "faults of user code",
  interrupted: "kicks",
  page_unavailable: "pages not to be had",
};

function exitsOf(mode: ModeReport | undefined): string {
  const exits = Object.entries(mode?.exits ?? {}).filter(([, count]) => count > 0);
  return (
    exits.map(([reason, count]) => `${figure(count)} ${REASONS[reason] ?? reason}`).join(", ") ||
    NOBODY
  );
}

/** What each costs beyond the same on a bare process: of what least met other work, over how often it happened. */
function exitCost(
  syscalls: WorkloadReport | undefined,
  memory: WorkloadReport | undefined,
): string {
  const each = (one: WorkloadReport | undefined, count: number | undefined): string => {
    const { process_least_ms: bare, microvm_least_ms: own } = one ?? {};
    if (bare == null || own == null || !count) return NOBODY;
    // What lies within the noise of a process is not a cost.
    return own > bare ? `${figure(((own - bare) * 1000) / count)} µs` : "nothing measured for";
  };
  return `${each(syscalls, syscalls?.exits?.syscall)} a system call; ${each(memory, memory?.page_faults)} a first touch of 4 KiB or 2 MiB (no exit: the host serves it)`;
}
