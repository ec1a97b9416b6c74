import { figure } from "#report/markup";
import { htmlTable, page, type Section } from "#report/page";
import { cdf, MOST_SERIES, timeSeries } from "#report/plots";
import type { LoadReport } from "./report.ts";
import {
  groupName,
  groupRows,
  type Rows,
  ratioRows,
  sentences,
  stepRows,
  thresholdRows,
} from "./words.ts";

const tableOf = (caption: string, { columns, rows }: Rows): string =>
  htmlTable(caption, columns, rows);

/** One file that needs nothing else. Its data element holds the whole report. */
export function reportPage(report: LoadReport): string {
  const { scenario, shows, beganAt, host, settings, groups } = report;
  const measured = groups.filter(({ ok }) => ok > 0).toSorted((a, b) => b.ok - a.ok);
  const drawn = measured.slice(0, MOST_SERIES);
  const left =
    measured.length > drawn.length
      ? ` The ${drawn.length} groups with most answers of ${measured.length}.`
      : "";
  const several = report.targets.length > 1;
  const chosen = Object.entries(settings).map(([name, value]) => `${name} ${value}`);
  const sections: Section[] = [
    {
      title: "What was measured",
      html: tableOf(
        "By stream, path and start kind, as the answers' headers say",
        groupRows(report),
      ),
    },
    { title: "Thresholds", html: tableOf("What must hold", thresholdRows(report)) },
    { title: "Over time", html: timePlots(report) },
    {
      title: "Distribution",
      html: cdf(
        {
          id: "cdf",
          title: "How large a part of the answers took at most so long",
          caption: `Left is faster; the dot is the median. Answers that were right, nothing trimmed.${left}`,
        },
        "ms",
        drawn.map((one) => ({
          name: groupName(one, several),
          values: one.quantiles_ms,
          n: one.ok,
        })),
      ),
    },
  ];
  if (report.knee)
    sections.push({ title: "Where it bends", html: tableOf("Steps", stepRows(report)) });
  if (report.versus.length > 0) {
    sections.push({
      title: "Side by side",
      html: tableOf("Ratios with 95 % bootstrap intervals, of one run", ratioRows(report.versus)),
    });
  }
  if (report.baseline) {
    const caption = `This run against that of ${report.baseline.beganAt}: a trend, since the machine may have been in another state`;
    sections.push({
      title: "Against the baseline",
      html: tableOf(caption, ratioRows(report.baseline.ratios)),
    });
  }
  if (report.failures.length > 0) {
    const rows = report.failures.map((one) => [
      one.reason,
      String(one.count),
      figure(one.first_at_ms / 1000),
    ]);
    const columns = [
      { title: "WHY" },
      { title: "count", right: true },
      { title: "first at s", right: true },
    ];
    sections.push({ title: "Failures", html: htmlTable("Requests that failed", columns, rows) });
  }
  return page({
    title: `${scenario}: ${shows}`,
    lead: [
      ...sentences(report),
      `${beganAt}; ${chosen.join(", ")}; ${host.cpu}, ${host.memoryMb} MiB, Linux ${host.kernel}.`,
    ],
    sections,
    data: report,
  });
}

function timePlots({ over_time, targets }: LoadReport): string {
  const several = targets.length > 1;
  const series = over_time.flatMap(({ target, path, slices }) =>
    (["p50_ms", "p99_ms"] as const).map((what) => ({
      name: `${several ? `${target} ` : ""}${path} ${what === "p50_ms" ? "p50" : "p99"}`,
      points: slices.map((slice) => [slice.at_s, slice[what]] as const),
    })),
  );
  const text = {
    id: "time",
    title: "Time of answers over the run",
    caption: "Of what was sent in each sixtieth of the run, by path.",
  };
  return timeSeries(text, "ms", series, "log");
}
