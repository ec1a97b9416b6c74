import { figure } from "#report/markup";
import { logScale } from "#report/scale";
import { type Html, html } from "./html.ts";

/** The plot's frame in units of its own drawing. The script reads all of it from the drawing's data. */
const WIDTH = 760;
const HEIGHT = 300;
const [LEFT, RIGHT, TOP, BOTTOM] = [14, 66, 12, 40];
/** What is drawn, ms and s. */
const [LEAST_MS, MOST_MS] = [0.001, 10_000];
const SECONDS = 60;

/** The frame of the live plot: axes, and a place for the marks. */
export function plot(): Html {
  const y = logScale(LEAST_MS, MOST_MS, HEIGHT - BOTTOM, TOP);
  const right = WIDTH - RIGHT;
  const x = (secondsAgo: number): number => right - (secondsAgo / SECONDS) * (right - LEFT);
  const ago = [60, 45, 30, 15, 0];
  const data = { left: LEFT, right, top: TOP, bottom: HEIGHT - BOTTOM, seconds: SECONDS };
  return html`<figure class="plot"><div class="legend"><span><svg viewBox="0 0 12 12" aria-hidden="true"><circle class="mark container" cx="6" cy="6" r="4"/></svg> container</span> <span><svg viewBox="0 0 12 12" aria-hidden="true"><path class="mark microvm" d="M6 1L11 6L6 11L1 6Z"/></svg> micro-VM</span> <span><svg viewBox="0 0 12 12" aria-hidden="true"><circle class="mark container warm" cx="6" cy="6" r="4"/></svg> hollow: warm</span></div>
<div class="scroll" role="region" tabindex="0" aria-label="Plot"><svg id="live-plot" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Boot time of calls over the last minute, on a logarithmic axis. The table beside it has the same in numbers."${Object.entries(
    data,
  ).map(
    ([name, value]) => html` data-${name}="${value}"`,
  )} data-least="${LEAST_MS}" data-most="${MOST_MS}">
${y.ticks.map((tick) => html`<line class="grid" x1="${LEFT}" x2="${right}" y1="${y.at(tick)}" y2="${y.at(tick)}"/><text class="tick" x="${right + 8}" y="${y.at(tick) + 4}">${figure(tick)}</text>`)}
${ago.map((seconds) => html`<line class="grid" x1="${x(seconds)}" x2="${x(seconds)}" y1="${TOP}" y2="${HEIGHT - BOTTOM + 4}"/><text class="tick middle" x="${x(seconds)}" y="${HEIGHT - BOTTOM + 18}">${seconds === 0 ? "now" : `${seconds} s`}</text>`)}
<text class="tick middle" x="${(LEFT + right) / 2}" y="${HEIGHT - 4}">ago</text>
<text class="tick middle" transform="translate(${WIDTH - 6} ${(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)">ms until a sandbox could serve</text>
<clipPath id="live-inside"><rect x="${LEFT}" y="${TOP - 6}" width="${right - LEFT + 6}" height="${HEIGHT - BOTTOM - TOP + 12}"/></clipPath>
<g clip-path="url(#live-inside)"><g id="live-marks"></g></g></svg></div></figure>`;
}
