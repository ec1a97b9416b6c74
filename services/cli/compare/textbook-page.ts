import { htmlTable, markdownTable, notes, page, paste } from "#report/page";
import { cdf } from "#report/plots";
import { type TextbookReport, textbookTable } from "./textbook.ts";

/** The table with its sources, and the starts that stand behind it. */
export function textbookPage(report: TextbookReport): string {
  const { host, n, boot } = report;
  const { columns, rows } = textbookTable(report);
  return page({
    title: "What is said of virtual machines and containers, and what is measured",
    lead: [
      `${n} rounds after ${boot.warmUpRounds} that do not count; first answers and overhead of Node 24 and Python, all kinds in every round.`,
      `${host.cpu}, ${host.cores} cores, ${host.memoryMb} MiB, Linux ${host.kernel}, cgroups ${host.cgroup}, Node ${host.node}.`,
    ],
    sections: [
      {
        title: "The table",
        html:
          htmlTable("Said, and measured here", columns, rows) +
          notes(report.sources) +
          notes(boot.remarks.map(({ mode, remark }) => `${mode}: ${remark}.`)) +
          paste("As Markdown", markdownTable(columns, rows)),
      },
      {
        title: "First answers",
        html: cdf(
          {
            id: "starts",
            title: "How many first answers took at most so long",
            caption:
              "Each line rises by one step for each start; the dot is its median. The axis is logarithmic.",
          },
          "ms",
          boot.modes.map(({ mode, times_ms }) => ({ name: mode, values: times_ms })),
        ),
      },
    ],
    data: report,
  });
}
