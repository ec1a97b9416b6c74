import { distributionPlot, phasePlots } from "#comparison/plots";
import {
  exitTable,
  markdownOf,
  phaseTable,
  ratioTable,
  remarksOf,
  type ShownTable,
  startTable,
} from "#comparison/tables";
import type { Comparison } from "#contracts/comparison";
import { figure } from "#report/markup";
import { htmlTable, notes, page, paste, type Section } from "#report/page";
import { cdf } from "#report/plots";
import type { HostFacts } from "../host/facts.ts";
import { peerRemarks, peerTable } from "./peer-table.ts";
import type { PeerReport } from "./peers.ts";

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
  const html = (caption: string, { columns, rows }: ShownTable): string =>
    htmlTable(caption, columns, rows);
  const table = startTable(comparison);
  const ratios = ratioTable(comparison);
  const sections: Section[] = [
    {
      title: "Both paths",
      html: [
        notes([...remarksOf(comparison), ...peerRemarks(peers)]),
        html(SUMMARY, table),
        ratios.rows.length > 0 ? html("How many times as long", ratios) : "",
        paste("As Markdown", markdownOf(comparison)),
      ].join(""),
    },
    {
      title: "Distributions",
      html: distributionPlot(comparison),
    },
    {
      title: "Where the time goes",
      html: phasePlots(comparison) + html("Phases", phaseTable(comparison)),
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

function exitSection(comparison: Comparison): Section[] {
  const { columns, rows } = exitTable(comparison);
  if (rows.length === 0) return [];
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
