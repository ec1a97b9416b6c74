import { figure } from "#report/markup";
import { htmlTable, markdownTable, notes, page, paste } from "#report/page";
import { cdf, stackedBars } from "#report/plots";
import type { BootReport } from "./boot.ts";
import { costTable, partsByMode, timesTable, timeTable } from "./boot-tables.ts";

/** All that `bench boot` measured as one file that needs nothing else. */
export function bootPage(report: BootReport): string {
  const { host, warmUpRounds, modes, unavailable, remarks, firstFailures } = report;
  const times = timesTable(report);
  const parts = partsByMode(report);
  const words = [...new Set(parts.flatMap(({ parts: own }) => Object.keys(grouped(own))))];
  const bars = parts.map(({ mode, parts: own, p50_ms }) => ({
    name: mode,
    parts: grouped(own),
    note: `${figure(p50_ms)} ms`,
  }));
  const restored = bars.filter(({ name }) => /restored|reset/.test(name));
  const named = Object.fromEntries(words.map((word) => [word, word]));
  const drawn = (id: string, title: string, caption: string, some: typeof bars): string =>
    some.length > 0 ? stackedBars({ id, title, caption }, "ms", named, some) : "";
  const caption = "Medians of each part. They need not add up to the median of the whole.";
  const html = ({ columns, rows }: ReturnType<typeof timesTable>, title: string): string =>
    htmlTable(title, columns, rows);
  return page({
    title: "From the request for a sandbox to its first answer",
    lead: [
      `${modes[0]?.n ?? 0} rounds of every mode, after ${warmUpRounds} that do not count, interleaved. Nothing is trimmed; failures count as runs and have no time.`,
      `${host.cpu}, ${host.cores} cores, ${host.memoryMb} MiB, Linux ${host.kernel}, cgroups ${host.cgroup}, Node ${host.node}.`,
    ],
    sections: [
      {
        title: "Times",
        html:
          notes([
            ...unavailable.map(({ mode, reason }) => `${mode} cannot be had: ${reason}.`),
            ...remarks.map(({ mode, remark }) => `${mode}: ${remark}.`),
            ...Object.entries(firstFailures).map(
              ([mode, text]) => `${mode}, first failure: ${text}`,
            ),
          ]) +
          html(times, "Milliseconds") +
          paste("As Markdown", markdownTable(times.columns, times.rows)),
      },
      {
        title: "Distributions",
        html: cdf(
          {
            id: "cdf",
            title: "How many took at most so long",
            caption:
              "Each line rises by one step for each run; the dot is its median. The axis is logarithmic.",
          },
          "ms",
          modes.map(({ mode, times_ms }) => ({ name: mode, values: times_ms })),
        ),
      },
      {
        title: "Where the time goes",
        html:
          drawn("parts", "Parts of a start", caption, bars) +
          drawn("restores", "Parts of a restore alone", caption, restored) +
          html(timeTable(report), "Parts of a start, medians, ms"),
      },
      { title: "What it has cost", html: html(costTable(report), "By the first answer, medians") },
    ],
    data: report,
  });
}

/** sandboxd's many small steps as one: a bar shows no more parts than can be told apart, the table shows all. */
function grouped(parts: readonly [words: string, ms: number][]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [words, ms] of parts) {
    const name = words.startsWith("sandboxd:") ? "sandboxd's steps" : words;
    sums[name] = (sums[name] ?? 0) + ms;
  }
  return sums;
}
