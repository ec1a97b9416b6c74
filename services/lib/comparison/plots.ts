import type { Comparison, StartReport } from "#contracts/comparison";
import { figure } from "#report/markup";
import { cdf, stackedBars } from "#report/plots";
import { PARTS, partsOf, sharesOf } from "./phases.ts";

const startsOf = ({ paths }: Comparison): { name: string; one: StartReport }[] =>
  paths.flatMap(({ path, starts }) => starts.map((one) => ({ name: `${path} ${one.start}`, one })));

/** The times of each start, as a figure in HTML. */
export const distributionPlot = (comparison: Comparison): string =>
  cdf(
    {
      id: "cdf",
      title: "How many runs took at most so long",
      caption:
        "Each line rises by one step for each run; the dot is its median. Further left is faster, and steeper is steadier. The axis is logarithmic.",
    },
    "ms",
    startsOf(comparison).map(({ name, one }) => ({ name, values: one.times_ms })),
  );

/** What each start is made of, in ms and in shares, as two figures in HTML. */
export function phasePlots(comparison: Comparison): string {
  const bars = startsOf(comparison)
    .filter(({ one }) => one.times_ms.length > 0)
    .map(({ name, one }) => ({ name, parts: partsOf(one), note: `${figure(one.p50_ms)} ms` }));
  const whole = {
    id: "phases",
    title: "Phases of a run",
    caption:
      "Medians of each phase. They need not add up to the median of the whole; what no phase covers is the rest.",
  };
  const shares = {
    id: "shares",
    title: "Phases as shares of their run",
    caption: "The same with all bars equally long, so that short runs can be read too.",
  };
  return (
    stackedBars(whole, "ms", PARTS, bars) +
    stackedBars(
      shares,
      "%",
      PARTS,
      bars.map((bar) => ({ ...bar, parts: sharesOf(bar.parts) })),
    )
  );
}
