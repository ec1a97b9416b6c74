import { escapeText, figure } from "./markup.ts";
import { linearScale, logScale, type Scale } from "./scale.ts";
import { ascending, percentile } from "./statistics.ts";

/** Marks of the series of one plot: as many as colours and dashes tell apart. */
export const MOST_SERIES = 16;
const COLOURS = 8;

/** A plot and what tells its series apart. `id` is unique in its page. */
export interface PlotText {
  id: string;
  title: string;
  /** What one should see in it, for those who read and for those who hear. */
  caption: string;
}

export interface CdfSeries {
  name: string;
  values: readonly number[];
  /** Of how many the values are the evenly spaced quantiles, when they are not all there were. */
  n?: number;
}

const WIDTH = 760;
const [LEFT, RIGHT, TOP, BOTTOM] = [60, 20, 14, 44];
const HEIGHT = 300;
const [BAR, BAR_GAP] = [20, 12];

/** How large a part of all values is at most so large: one step per value, on a logarithmic axis. Values not above zero are drawn at its start. */
export function cdf(text: PlotText, unit: string, given: readonly CdfSeries[]): string {
  const series = given.slice(0, MOST_SERIES).map(({ name, values, n }) => ({
    name,
    sorted: ascending(values.filter(Number.isFinite)),
    n,
  }));
  const positive = series.flatMap(({ sorted }) => sorted.filter((value) => value > 0));
  const x = logScale(least(positive) ?? 1, most(positive) ?? 10, LEFT, WIDTH - RIGHT);
  const y: Scale = {
    at: (part) => HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - TOP),
    ticks: [0, 0.25, 0.5, 0.75, 1],
  };
  const lines = series.map(({ name, sorted, n = sorted.length }, index) => {
    const [first] = sorted;
    if (first === undefined) return "";
    let path = `M${px(x.at(first))} ${px(y.at(0))}`;
    for (const [at, value] of sorted.entries())
      path += `H${px(x.at(value))}V${px(y.at((at + 1) / sorted.length))}`;
    const middle = percentile(sorted, 0.5) as number;
    const last = percentile(sorted, 0.99) as number;
    const said = `${name}: p50 ${figure(middle)} ${unit}, p99 ${figure(last)} ${unit}, n ${n}`;
    return `<g class="series ${mark(index)} at-${index}"><title>${escapeText(said)}</title><path d="${path}"/><circle cx="${px(x.at(middle))}" cy="${px(y.at(0.5))}" r="4"/></g>`;
  });
  const axes = axesOf(x, y, unit, (part) => `${part * 100} %`, HEIGHT);
  return framed(
    text,
    series.map(({ name }) => name),
    svg(text, HEIGHT, axes + lines.join("")),
  );
}

export interface StackedBar {
  name: string;
  /** In the order they are drawn; absent ones are not there. */
  parts: Readonly<Record<string, number | undefined>>;
  /** Said at the end of the bar, instead of the sum. */
  note?: string;
}

/** One bar per row, made of parts; the same part has the same colour in all. `names` gives their order and their words. */
export function stackedBars(
  text: PlotText,
  unit: string,
  names: Readonly<Record<string, string>>,
  given: readonly StackedBar[],
): string {
  const all = Object.keys(names);
  const alone = all.length > MOST_SERIES ? all.slice(0, MOST_SERIES - 1) : all;
  const keys = alone.length < all.length ? [...alone, OTHERS] : alone;
  const bars = given.map((bar) => ({ ...bar, parts: withOthers(bar.parts, all, alone) }));
  const sums = bars.map(({ parts }) => keys.reduce((sum, key) => sum + (parts[key] ?? 0), 0));
  const left = 190;
  const x = linearScale(most(sums) ?? 1, left, WIDTH - 110);
  const height = TOP + bars.length * (BAR + BAR_GAP) + BOTTOM;
  const rows = bars.map(({ name, parts, note }, row) => {
    const top = TOP + row * (BAR + BAR_GAP);
    let from = 0;
    const drawn = keys.map((key, index) => {
      const value = parts[key] ?? 0;
      if (!(value > 0)) return "";
      const [start, end] = [x.at(from), x.at(from + value)];
      from += value;
      return `<rect class="part ${mark(index)} at-${index}" x="${px(start)}" y="${top}" width="${px(end - start)}" height="${BAR}"><title>${escapeText(`${name}, ${names[key] ?? key}: ${figure(value)} ${unit}`)}</title></rect>`;
    });
    const middle = top + BAR / 2;
    return `<text class="name" x="${left - 8}" y="${middle}">${escapeText(shortened(name))}</text>${drawn.join("")}<text class="value" x="${px(x.at(from) + 6)}" y="${middle}">${escapeText(note ?? `${figure(sums[row])} ${unit}`)}</text>`;
  });
  const lines = x.ticks.map(
    (tick) =>
      `<line class="grid" x1="${px(x.at(tick))}" x2="${px(x.at(tick))}" y1="${TOP}" y2="${height - BOTTOM + 4}"/><text class="tick middle" x="${px(x.at(tick))}" y="${height - BOTTOM + 18}">${figure(tick)}</text>`,
  );
  const label = `<text class="label middle" x="${(left + WIDTH - 110) / 2}" y="${height - 6}">${escapeText(unit)}</text>`;
  const words = keys.map((key) => names[key] ?? key);
  return framed(text, words, svg(text, height, lines.join("") + label + rows.join("")));
}

const OTHERS = "others";

/** More parts than can be told apart are one: none is left out of its bar. */
function withOthers(
  parts: StackedBar["parts"],
  all: readonly string[],
  alone: readonly string[],
): StackedBar["parts"] {
  if (alone.length === all.length) return parts;
  const rest = all.slice(alone.length).reduce((sum, key) => sum + (parts[key] ?? 0), 0);
  return { ...parts, [OTHERS]: rest };
}

export interface TimeSeries {
  name: string;
  /** Time from the beginning, s, and value; a null is a gap. */
  points: readonly (readonly [atS: number, value: number | null])[];
}

/** Values over time, lines broken where there is none. */
export function timeSeries(
  text: PlotText,
  unit: string,
  given: readonly TimeSeries[],
  axis: "linear" | "log" = "linear",
): string {
  const series = given.slice(0, MOST_SERIES);
  const values = series.flatMap(({ points }) =>
    points.flatMap(([, value]) => (value === null ? [] : [value])),
  );
  const times = series.flatMap(({ points }) => points.map(([at]) => at));
  const x = linearScale(most(times) ?? 1, LEFT, WIDTH - RIGHT);
  const [bottom, top] = [HEIGHT - BOTTOM, TOP];
  const positive = values.filter((value) => value > 0);
  const y =
    axis === "log"
      ? logScale(least(positive) ?? 1, most(positive) ?? 10, bottom, top)
      : linearScale(most(values) ?? 1, bottom, top);
  const lines = series.map(({ name, points }, index) => {
    let path = "";
    let open = false;
    const dots: string[] = [];
    for (const [at, value] of points) {
      if (value !== null) {
        const [cx, cy] = [px(x.at(at)), px(y.at(value))];
        // A line of no length shows a value that stands alone.
        path += open ? `L${cx} ${cy}` : `M${cx} ${cy}h0`;
        // Each point of a long run would hide the line.
        if (points.length <= 120)
          dots.push(
            `<circle cx="${cx}" cy="${cy}" r="2.5"><title>${escapeText(`${name}, ${figure(at)} s: ${figure(value)} ${unit}`)}</title></circle>`,
          );
      }
      open = value !== null;
    }
    return `<g class="series ${mark(index)} at-${index}"><title>${escapeText(name)}</title><path d="${path}"/>${dots.join("")}</g>`;
  });
  const axes = axesOf(x, y, "seconds", figure, HEIGHT) + yLabel(unit);
  return framed(
    text,
    series.map(({ name }) => name),
    svg(text, HEIGHT, axes + lines.join("")),
  );
}

function axesOf(
  x: Scale,
  y: Scale,
  unit: string,
  yWords: (value: number) => string,
  height: number,
): string {
  const [bottom, right] = [height - BOTTOM, WIDTH - RIGHT];
  const across = y.ticks.map(
    (tick) =>
      `<line class="grid" x1="${LEFT}" x2="${right}" y1="${px(y.at(tick))}" y2="${px(y.at(tick))}"/><text class="tick end" x="${LEFT - 6}" y="${px(y.at(tick) + 4)}">${escapeText(yWords(tick))}</text>`,
  );
  const up = x.ticks.map(
    (tick) =>
      `<line class="grid" x1="${px(x.at(tick))}" x2="${px(x.at(tick))}" y1="${TOP}" y2="${bottom + 4}"/><text class="tick middle" x="${px(x.at(tick))}" y="${bottom + 18}">${figure(tick)}</text>`,
  );
  return `${across.join("")}${up.join("")}<text class="label middle" x="${(LEFT + right) / 2}" y="${height - 6}">${escapeText(unit)}</text>`;
}

const yLabel = (unit: string): string =>
  `<text class="label middle" transform="translate(12 ${HEIGHT / 2}) rotate(-90)">${escapeText(unit)}</text>`;

const svg = ({ title, caption }: PlotText, height: number, inner: string): string =>
  `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escapeText(`${title}. ${caption}`)}">${inner}</svg>`;

/** With a legend of boxes that hide and show each series: by mouse or keyboard, without a script. */
function framed(
  { id, title, caption }: PlotText,
  names: readonly string[],
  drawing: string,
): string {
  const boxes = names.map(
    (name, index) =>
      `<label><input type="checkbox" checked data-at="${index}"><svg class="swatch" viewBox="0 0 24 10" aria-hidden="true"><g class="series ${mark(index)}"><path d="M0 5H24"/></g></svg>${escapeText(name)}</label>`,
  );
  return `<figure id="${escapeText(id)}"><h3>${escapeText(title)}</h3><div class="legend">${boxes.join("")}</div>${drawing}<figcaption>${escapeText(caption)}</figcaption></figure>`;
}

/** Colours come again with another dash. */
const mark = (index: number): string => `c${index % COLOURS}${index >= COLOURS ? " dashed" : ""}`;

const px = (value: number): string => String(Math.round(value * 100) / 100);
const shortened = (name: string): string => (name.length > 26 ? `${name.slice(0, 25)}…` : name);

/** Without spreading: there may be more values than a call takes arguments. */
function least(values: readonly number[]): number | undefined {
  let found: number | undefined;
  for (const value of values) if (found === undefined || value < found) found = value;
  return found;
}
function most(values: readonly number[]): number | undefined {
  let found: number | undefined;
  for (const value of values) if (found === undefined || value > found) found = value;
  return found;
}
