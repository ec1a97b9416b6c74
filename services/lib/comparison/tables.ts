import type { Comparison, PathReport, StartReport } from "#contracts/comparison";
import { figure } from "#report/markup";
import { markdownTable, type TableColumn } from "#report/page";
import { PARTS, type Part, partsOf } from "./phases.ts";

/** A table as all outputs show it: text, Markdown and HTML. */
export interface ShownTable {
  columns: TableColumn[];
  rows: string[][];
}

const number = (title: string): TableColumn => ({ title, right: true });

/** An interval in words. */
export const betweenWords = (interval: { low: number; high: number } | null): string =>
  interval ? `${figure(interval.low)} to ${figure(interval.high)}` : "-";

const sumOf = (exits: Record<string, number> | undefined): string =>
  exits ? figure(Object.values(exits).reduce((sum, count) => sum + count, 0)) : "-";

const mib = (kib: number | null): string => (kib === null ? "-" : figure(kib / 1024));

/** One row for each start of each path; one for a path that cannot be had. */
export function startTable({ paths }: Comparison): ShownTable {
  const columns: TableColumn[] = [
    { title: "path" },
    { title: "start" },
    ...["n", "failed", "p50 ms", "95 % of p50", "p90 ms", "p99 ms", "max ms"].map(number),
    ...["cpu ms", "private MiB", "page faults", "exits"].map(number),
  ];
  const row = ({ path }: PathReport, one: StartReport): string[] => [
    path,
    one.start,
    String(one.n),
    String(one.failures),
    figure(one.p50_ms),
    betweenWords(one.p50_interval),
    figure(one.p90_ms),
    figure(one.p99_ms),
    figure(one.max_ms),
    figure(one.cpu_ms),
    mib(one.private_kib),
    figure(one.page_faults),
    sumOf(one.exits),
  ];
  const rows = paths.flatMap((path) =>
    path.available
      ? path.starts.map((one) => row(path, one))
      : [[path.path, "not to be had", ...columns.slice(2).map(() => "-")]],
  );
  return { columns, rows };
}

/** Ratios of medians. */
export function ratioTable({ ratios }: Comparison): ShownTable {
  return {
    columns: [{ title: "ratio of" }, { title: "to" }, number("of medians"), number("95 %")],
    rows: ratios.map(({ of, to, ratio, interval }) => [
      of,
      to,
      figure(ratio),
      betweenWords(interval),
    ]),
  };
}

/** Medians of the phases, one column for each start. */
export function phaseTable({ paths }: Comparison): ShownTable {
  const starts = paths.flatMap(({ path, starts }) =>
    starts.map((one) => ({ name: `${path} ${one.start}`, parts: partsOf(one) })),
  );
  const names = (Object.keys(PARTS) as Part[]).filter((part) =>
    starts.some(({ parts }) => (parts[part] ?? 0) > 0),
  );
  return {
    columns: [{ title: "phase (p50, ms)" }, ...starts.map(({ name }) => number(name))],
    rows: names.map((part) => [
      PARTS[part],
      ...starts.map(({ parts }) => ((parts[part] ?? 0) > 0 ? figure(parts[part]) : "-")),
    ]),
  };
}

/** Starts and ratios as text that can be pasted into a document. */
export function markdownOf(comparison: Comparison): string {
  return [startTable(comparison), ratioTable(comparison)]
    .filter(({ rows }) => rows.length > 0)
    .map(({ columns, rows }) => markdownTable(columns, rows))
    .join("\n");
}

/** Exits of virtual processors, one row for each start that has told some. */
export function exitTable({ paths }: Comparison): ShownTable {
  const titles = ["system calls", "faults of user code", "kicks", "pages not there"];
  return {
    columns: [{ title: "start" }, ...titles.map(number)],
    rows: paths.flatMap(({ path, starts }) =>
      starts.flatMap(({ start, exits }) =>
        exits ? [[`${path} ${start}`, ...REASONS.map((reason) => figure(exits[reason] ?? 0))]] : [],
      ),
    ),
  };
}
const REASONS = ["syscall", "fault", "interrupted", "page_unavailable"] as const;

/** What a reader must know beside the numbers: one sentence each. */
export function remarksOf(comparison: Comparison): string[] {
  const remarks: string[] = [];
  if (comparison.stopped !== undefined) remarks.push(`Stopped early. ${comparison.stopped}.`);
  for (const { path, available, reason, starts } of comparison.paths) {
    if (!available) remarks.push(`${path} cannot be had: ${reason ?? "nobody said why"}.`);
    for (const { start, n, first_failure } of starts)
      if (first_failure !== undefined)
        remarks.push(
          n === 0
            ? `${path} ${start} cannot be had: ${first_failure}.`
            : `${path} ${start}, first failure: ${first_failure}.`,
        );
  }
  return remarks;
}
