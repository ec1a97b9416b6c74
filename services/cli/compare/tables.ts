import type { Comparison, PathReport, StartReport } from "#contracts/comparison";
import { figure } from "#report/markup";
import type { TableColumn } from "#report/page";
import type { PeerReport } from "./peers.ts";
import { PARTS, type Part, partsOf } from "./phases.ts";

/** A table as all outputs show it: text, Markdown and HTML. */
export interface ShownTable {
  columns: TableColumn[];
  rows: string[][];
}

const number = (title: string): TableColumn => ({ title, right: true });

const between = (interval: { low: number; high: number } | null): string =>
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
    between(one.p50_interval),
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
    rows: ratios.map(({ of, to, ratio, interval }) => [of, to, figure(ratio), between(interval)]),
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

/** Sandboxes of the peers, without HTTP and queue. */
export function peerTable(peers: readonly PeerReport[]): ShownTable {
  const titles = ["n", "failed", "p50 ms", "95 % of p50", "p90 ms", "p99 ms"];
  return {
    columns: [{ title: "first answer, sandbox alone" }, ...titles.map(number)],
    rows: peers.map((one) =>
      one.available
        ? [
            one.peer,
            String(one.n),
            String(one.failures),
            figure(one.p50_ms),
            between(one.p50_interval),
            figure(one.p90_ms),
            figure(one.p99_ms),
          ]
        : [one.peer, ...titles.map(() => "-")],
    ),
  };
}

/** What a reader must know beside the numbers: one sentence each. */
export function remarksOf(comparison: Comparison, peers: readonly PeerReport[]): string[] {
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
  for (const { peer, available, reason, first_failure } of peers) {
    if (!available) remarks.push(`${peer} cannot be had: ${reason}.`);
    else if (first_failure !== undefined) remarks.push(`${peer}, first failure: ${first_failure}.`);
  }
  return remarks;
}
