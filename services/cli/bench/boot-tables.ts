import { figure } from "#report/markup";
import type { TableColumn } from "#report/page";
import type { BootReport, ModeReport } from "./boot.ts";

interface Shown {
  columns: TableColumn[];
  rows: string[][];
}

const number = (title: string): TableColumn => ({ title, right: true });

/** Steps of sandboxd within the making of a sandbox, in their order. */
const STEPS: [name: string, words: string][] = [
  ["cradle_ms", "sandboxd: control groups"],
  ["limit_ms", "sandboxd: limits set"],
  ["root_ms", "sandboxd: root laid out"],
  ["clone_ms", "sandboxd: clone3"],
  ["ids_ms", "sandboxd: ids mapped"],
  ["mount_ms", "sandboxd: mounts"],
  ["network_ms", "sandboxd: network"],
  ["lockdown_ms", "sandboxd: seccomp, Landlock"],
  ["exec_ms", "sandboxd: program started"],
];

/** What follows what until the first answer; each number is a median, so they need not add up to the last digit. */
function partsOf({ phases, steps, p50_ms }: ModeReport): [words: string, ms: number][] {
  const of = (name: string): number => phases[name] ?? 0;
  const inSteps = STEPS.map(([name, words]): [string, number] => [words, steps[name] ?? 0]);
  const told = phases.create_ms === undefined ? [] : inSteps;
  const toldMs = told.reduce((sum, [, ms]) => sum + ms, 0);
  const waited = phases.reset_ms === undefined;
  const parts: [string, number][] = [
    ...told,
    ["request and reply around that", Math.max(0, of("create_ms") - toldMs)],
    ["runtime boots", of("runtime_ms")],
    ["function put in", of("assign_ms")],
    ["put back to its snapshot", of("reset_ms")],
    [
      "brought back: memory, state, threads",
      waited ? Math.max(0, of("restore_ms") - of("renew_ms")) : 0,
    ],
    ["runner and hooks renew it", waited ? of("renew_ms") : 0],
    ["function loaded", of("init_ms")],
  ];
  const sum = parts.reduce((total, [, ms]) => total + ms, 0);
  return [...parts, ["first answer, and the rest", Math.max(0, (p50_ms ?? sum) - sum)]];
}

/** Their sandboxes had been started before anybody called. */
const NO_START = /-(?:warm|warm-booted|pooled)$/;

/** Of each mode whose sandboxes tell. */
export function partsByMode({
  modes,
}: BootReport): { mode: string; p50_ms: number | null; parts: [words: string, ms: number][] }[] {
  return modes
    .filter(({ mode, phases }) => !NO_START.test(mode) && Object.keys(phases).length > 0)
    .map((one) => ({ mode: one.mode, p50_ms: one.p50_ms, parts: partsOf(one) }));
}

/** One row for each mode. */
export function timesTable({ modes }: BootReport): Shown {
  const titles = ["n", "failures", "min", "p50", "95 % of p50", "p90", "p99", "max"];
  return {
    columns: [{ title: "MODE (ms)" }, ...titles.map(number)],
    rows: modes.map((one) => [
      one.mode,
      String(one.n),
      String(one.failures),
      figure(one.min_ms),
      figure(one.p50_ms),
      one.p50_interval
        ? `${figure(one.p50_interval.low)} to ${figure(one.p50_interval.high)}`
        : "-",
      figure(one.p90_ms),
      figure(one.p99_ms),
      figure(one.max_ms),
    ]),
  };
}

/** One column for each mode whose sandboxes tell. */
export function timeTable(report: BootReport): Shown {
  const telling = partsByMode(report);
  const words = allWords(telling.map(({ parts }) => parts));
  return {
    columns: [{ title: "PART (p50, ms)" }, ...telling.map(({ mode }) => number(mode))],
    rows: words.map((word) => [
      word,
      ...telling.map(({ parts }) => {
        const ms = parts.find(([name]) => name === word)?.[1] ?? 0;
        return ms > 0 ? figure(ms) : "-";
      }),
    ]),
  };
}

function allWords(all: [string, number][][]): string[] {
  const longest = all.toSorted((a, b) => b.length - a.length)[0] ?? [];
  return longest
    .map(([word]) => word)
    .filter((word) => all.some((parts) => parts.some(([name, ms]) => name === word && ms > 0)));
}

/** What a sandbox has cost in all when its first answer is there. */
export function costTable({ modes }: BootReport): Shown {
  const titles = [
    "cpu ms",
    "held back by its limit, ms",
    "page faults",
    "context switches",
    "private MiB",
    "shared MiB",
  ];
  const exits = ["exits: system calls", "faults", "kicks", "pages not there"];
  return {
    columns: [{ title: "COST (p50)" }, ...[...titles, ...exits].map(number)],
    rows: modes
      .filter(({ page_faults }) => page_faults !== undefined)
      .map((one) => [
        one.mode,
        figure(one.cpu_ms),
        figure(one.held_back_ms),
        figure(one.page_faults),
        figure(one.context_switches),
        ...[one.private_kib, one.shared_kib].map((kib) =>
          figure(kib === undefined ? undefined : kib / 1024),
        ),
        ...["syscall", "fault", "interrupted", "page_unavailable"].map((reason) =>
          figure(one.exits?.[reason]),
        ),
      ]),
  };
}
