import type { Comparison } from "#contracts/comparison";
import { figure } from "#report/markup";
import { htmlTable, markdownTable, notes, page, paste, type Section } from "#report/page";
import { cdf, stackedBars } from "#report/plots";
import type { HostFacts } from "../host/facts.ts";
import type { PeerReport } from "./peers.ts";
import { PARTS, partsOf, sharesOf } from "./phases.ts";
import {
  peerTable,
  phaseTable,
  ratioTable,
  remarksOf,
  type ShownTable,
  startTable,
} from "./tables.ts";

/** Where and when, in one sentence each. */
export function leadOf(comparison: Comparison, host: HostFacts): string[] {
  const { function: name, version, runtime, call, n } = comparison;
  return [
    `${name}@${version}, ${runtime}, ${call}: ${n} runs of each start of each path after ${comparison.warm_up_rounds} rounds that do not count, interleaved; ${comparison.invocations} invocations in ${figure(comparison.duration_ms / 1000)} s, from the moment the gateway accepts a call to the last byte of its answer.`,
    `A warm call comes after ${comparison.calls_before_warm} others in the same sandbox. Nothing is trimmed; failures count as runs and have no time. Intervals hold the true median with 95 % by bootstrap.`,
    `Measured ${comparison.started_at} on ${comparison.nodes.join(", ") || "no node"}; this machine: ${host.cpu}, ${host.cores} cores, ${host.memoryMb} MiB, Linux ${host.kernel}, cgroups ${host.cgroup}.`,
  ];
}

const SUMMARY = "Times through HTTP's own queue, and what a call costs";

/** All that was measured as one file that needs nothing else. */
export function comparisonPage(
  comparison: Comparison,
  peers: readonly PeerReport[],
  host: HostFacts,
): string {
  const starts = comparison.paths.flatMap(({ path, starts }) =>
    starts.map((one) => ({ name: `${path} ${one.start}`, one })),
  );
  const html = (caption: string, { columns, rows }: ShownTable): string =>
    htmlTable(caption, columns, rows);
  const markdown = ({ columns, rows }: ShownTable): string => markdownTable(columns, rows);
  const bars = starts
    .filter(({ one }) => one.times_ms.length > 0)
    .map(({ name, one }) => ({ name, parts: partsOf(one), note: `${figure(one.p50_ms)} ms` }));
  const table = startTable(comparison);
  const ratios = ratioTable(comparison);
  const sections: Section[] = [
    {
      title: "Both paths",
      html: [
        notes(remarksOf(comparison, peers)),
        html(SUMMARY, table),
        ratios.rows.length > 0 ? html("How many times as long", ratios) : "",
        paste("As Markdown", `${markdown(table)}\n${markdown(ratios)}`),
      ].join(""),
    },
    {
      title: "Distributions",
      html: cdf(
        {
          id: "cdf",
          title: "How many runs took at most so long",
          caption:
            "Each line rises by one step for each run; the dot is its median. Further left is faster, and steeper is steadier. The axis is logarithmic.",
        },
        "ms",
        starts.map(({ name, one }) => ({ name, values: one.times_ms })),
      ),
    },
    {
      title: "Where the time goes",
      html:
        stackedBars(
          {
            id: "phases",
            title: "Phases of a run",
            caption:
              "Medians of each phase. They need not add up to the median of the whole; what no phase covers is the rest.",
          },
          "ms",
          PARTS,
          bars,
        ) +
        stackedBars(
          {
            id: "shares",
            title: "Phases as shares of their run",
            caption: "The same with all bars equally long, so that short runs can be read too.",
          },
          "%",
          PARTS,
          bars.map((bar) => ({ ...bar, parts: sharesOf(bar.parts) })),
        ) +
        html("Phases", phaseTable(comparison)),
    },
    ...exitSection(comparison),
    ...peerSection(peers),
  ];
  return page({
    title: `${comparison.function}@${comparison.version}: container and micro-VM`,
    lead: leadOf(comparison, host),
    sections,
    data: { comparison, peers, host },
  });
}

function exitSection({ paths }: Comparison): Section[] {
  const rows = paths.flatMap(({ path, starts }) =>
    starts.flatMap(({ start, exits }) =>
      exits ? [[`${path} ${start}`, ...REASONS.map((reason) => figure(exits[reason] ?? 0))]] : [],
    ),
  );
  if (rows.length === 0) return [];
  const titles = ["system calls", "faults of user code", "kicks", "pages not there"];
  const columns = [{ title: "start" }, ...titles.map((title) => ({ title, right: true }))];
  return [
    {
      title: "Exits of the virtual machine",
      html: htmlTable(
        "How often a virtual CPU came back in a call, by reason (medians)",
        columns,
        rows,
      ),
    },
  ];
}
const REASONS = ["syscall", "fault", "interrupted", "page_unavailable"] as const;

function peerSection(peers: readonly PeerReport[]): Section[] {
  if (peers.length === 0) return [];
  const { columns, rows } = peerTable(peers);
  return [
    {
      title: "Other sandboxes",
      html:
        htmlTable(
          "From the request for a sandbox to its first answer, without HTTP and queue; all of these in the same rounds",
          columns,
          rows,
        ) +
        cdf(
          {
            id: "peers",
            title: "How many first answers took at most so long",
            caption:
              "All of them boot; container-cold and microvm-cold are Cloister's own in the same rounds.",
          },
          "ms",
          peers.map(({ peer, times_ms }) => ({ name: peer, values: times_ms })),
        ),
    },
  ];
}
