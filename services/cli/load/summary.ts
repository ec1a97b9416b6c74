import { ascending, percentile } from "#report/statistics";
import { rounded } from "./groups.ts";
import type { LoadReport } from "./report.ts";
import type { ReportFiles } from "./report-files.ts";

/** What --json prints: metrics under the names and in the shape of k6's summary, so that scripts that read that one read this one; `generator` says who measured. */
export function summaryOf(report: LoadReport, files: ReportFiles): Record<string, unknown> {
  const { totals, elapsed_ms: elapsedMs, groups } = report;
  const perSecond = (count: number): number =>
    elapsedMs > 0 ? Math.round((count / elapsedMs) * 1e6) / 1000 : 0;
  const counter = (count: number) => ({ count, rate: perSecond(count) });
  return {
    scenario: report.scenario,
    generator: report.generator,
    ok: report.early === null && report.thresholds.every(({ crossed }) => !crossed),
    early: report.early,
    metrics: {
      http_reqs: counter(totals.sent),
      http_req_failed: {
        value: totals.sent === 0 ? 0 : totals.failed / totals.sent,
        passes: totals.failed,
        fails: totals.sent - totals.failed,
      },
      http_req_duration: trendOf(report),
      iterations: counter(totals.sent),
      dropped_iterations: counter(totals.dropped),
      data_received: counter(totals.bytes_in),
      data_sent: counter(totals.bytes_out),
    },
    groups: groups.map(({ quantiles_ms: _, ...group }) => group),
    thresholds: report.thresholds,
    failures: report.failures,
    knee: report.knee,
    versus: report.versus,
    baseline: report.baseline,
    report: files,
  };
}

/** Over all groups: each value of a group's sketch stands for as many answers. */
function trendOf({ groups }: LoadReport): Record<string, number | null> {
  const weighted = groups
    .flatMap(({ quantiles_ms, ok }) =>
      quantiles_ms.map((value) => ({ value, weight: ok / quantiles_ms.length })),
    )
    .sort((a, b) => a.value - b.value);
  const total = weighted.reduce((sum, { weight }) => sum + weight, 0);
  const at = (part: number): number | null => {
    let sum = 0;
    for (const { value, weight } of weighted) {
      sum += weight;
      if (sum >= part * total - 1e-9) return value;
    }
    return null;
  };
  const sum = weighted.reduce((all, { value, weight }) => all + value * weight, 0);
  const values = ascending(weighted.map(({ value }) => value));
  return {
    avg: total === 0 ? null : rounded(sum / total),
    min: percentile(values, 0),
    med: at(0.5),
    max: percentile(values, 1),
    "p(90)": at(0.9),
    "p(95)": at(0.95),
    "p(99)": at(0.99),
  };
}
