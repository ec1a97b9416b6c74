import { escapeText } from "./markup.ts";
import { MOST_SERIES } from "./plots.ts";

export interface TableColumn {
  title: string;
  /** Numbers stand right. */
  right?: boolean;
}

/** Cells are text; a row of a table of numbers. */
export function htmlTable(
  caption: string,
  columns: readonly TableColumn[],
  rows: readonly (readonly string[])[],
): string {
  const kind = (index: number): string => (columns[index]?.right ? ' class="number"' : "");
  const head = columns.map(
    ({ title }, index) => `<th scope="col"${kind(index)}>${escapeText(title)}</th>`,
  );
  const body = rows.map(
    (cells) =>
      `<tr>${cells.map((cell, index) => (index === 0 ? `<th scope="row">${escapeText(cell)}</th>` : `<td${kind(index)}>${escapeText(cell)}</td>`)).join("")}</tr>`,
  );
  return `<div class="table" tabindex="0" role="region" aria-label="${escapeText(caption)}"><table><caption>${escapeText(caption)}</caption><thead><tr>${head.join("")}</tr></thead><tbody>${body.join("")}</tbody></table></div>`;
}

/** The same as text that can be pasted into a document. */
export function markdownTable(
  columns: readonly TableColumn[],
  rows: readonly (readonly string[])[],
): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|").replaceAll(/\s+/g, " ")).join(" | ")} |`;
  const rule = columns.map(({ right }) => (right ? "---:" : "---"));
  return `${[line(columns.map(({ title }) => title)), line(rule), ...rows.map(line)].join("\n")}\n`;
}

/** What must be read beside the figures. */
export const notes = (texts: readonly string[]): string =>
  texts.length === 0
    ? ""
    : `<ul class="notes">${texts.map((text) => `<li>${escapeText(text)}</li>`).join("")}</ul>`;

/** Text to be copied as it stands. */
export const paste = (title: string, text: string): string =>
  `<details><summary>${escapeText(title)}</summary><pre tabindex="0">${escapeText(text)}</pre></details>`;

export interface Section {
  title: string;
  /** HTML, as the functions beside this one make it. */
  html: string;
}

export interface Page {
  title: string;
  /** Sentences under the title: what, where, how. */
  lead: readonly string[];
  sections: readonly Section[];
  /** All of the data, to be read by a script: in a script element that no browser runs. */
  data?: unknown;
}

/** One file that needs nothing else: no script, no network, light or dark as the reader's system is. */
export function page({ title, lead, sections, data }: Page): string {
  const links = sections.map((one, index) => `<a href="#s${index}">${escapeText(one.title)}</a>`);
  const parts = sections.map(
    (one, index) =>
      `<section id="s${index}"><h2>${escapeText(one.title)}</h2>${one.html}</section>`,
  );
  const stored =
    data === undefined
      ? ""
      : `<script type="application/json" id="data">${JSON.stringify(data).replaceAll("<", "\\u003c")}</script>`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>${escapeText(title)}</title><style>${STYLE}</style></head>
<body><header><h1>${escapeText(title)}</h1>${lead.map((text) => `<p>${escapeText(text)}</p>`).join("")}<nav aria-label="Sections">${links.join("")}</nav></header>
<main>${parts.join("\n")}</main>${stored}</body></html>
`;
}

const hidden = Array.from(
  { length: MOST_SERIES },
  (_, index) =>
    `figure:has(input[data-at="${index}"]:not(:checked)) .at-${index}{visibility:hidden}`,
).join("");

/** Colours that people who see few of them tell apart (Okabe and Ito), darker or lighter as the ground asks. */
const LIGHT = [
  "#0072b2",
  "#d55e00",
  "#007a5a",
  "#a8447e",
  "#8a6d00",
  "#1b87b8",
  "#5b5b5b",
  "#8b2f2f",
];
const DARK = [
  "#56b4e9",
  "#ff9a52",
  "#2fc79a",
  "#e79cc4",
  "#e6c84f",
  "#9ad5f5",
  "#b5b5b5",
  "#f28b82",
];
const colours = (all: readonly string[]): string =>
  all.map((colour, index) => `--c${index}:${colour}`).join(";");
const classes = LIGHT.map((_, index) => `.c${index}{--c:var(--c${index})}`).join("");

const STYLE = `:root{color-scheme:light dark;--ground:#fff;--text:#1a1a1a;--faint:#5c5c5c;--line:#d9d9d9;--head:#f3f3f3;${colours(LIGHT)}}
@media (prefers-color-scheme:dark){:root{--ground:#15181c;--text:#ececec;--faint:#aab0b6;--line:#3a4047;--head:#20252b;${colours(DARK)}}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1000px;padding:1.5rem;font:16px/1.5 system-ui,sans-serif;background:var(--ground);color:var(--text)}
h1{font-size:1.6rem;margin:0 0 .5rem}h2{font-size:1.25rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:0 0 .3rem}
p{margin:.3rem 0}nav{display:flex;flex-wrap:wrap;gap:1rem;margin:.8rem 0}a{color:var(--c0)}
:focus-visible{outline:3px solid var(--c1);outline-offset:2px}
.table{overflow-x:auto;margin:.8rem 0}table{border-collapse:collapse;width:100%;font-size:.92rem}caption{text-align:left;color:var(--faint);padding:.2rem 0}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;font-weight:400}thead th{background:var(--head);font-weight:600}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
figure{margin:1.2rem 0;padding:1rem;border:1px solid var(--line);border-radius:6px}figcaption{color:var(--faint);font-size:.92rem}
figure>svg{width:100%;height:auto;display:block}.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.9rem}.legend label{display:flex;align-items:center;gap:.3rem}
.swatch{width:24px;height:10px}pre{overflow-x:auto;padding:.8rem;background:var(--head);border-radius:6px;font-size:.85rem}summary{cursor:pointer}
svg text{font:12px system-ui,sans-serif;fill:var(--text)}svg .tick,svg .label{fill:var(--faint)}.middle{text-anchor:middle}.end,.name{text-anchor:end}.name,.value{dominant-baseline:central}
.grid{stroke:var(--line);stroke-width:1}${classes}.series path{fill:none;stroke:var(--c);stroke-width:2;stroke-linecap:round}.series circle{fill:var(--c)}.dashed path{stroke-dasharray:6 4}
.part{fill:var(--c);stroke:var(--ground);stroke-width:.4}.part.dashed{fill-opacity:.55}
${hidden}
.notes{border-left:4px solid var(--c1);margin:.8rem 0;padding:.2rem 0 .2rem 1.6rem}
@media print{nav,.legend input{display:none}}`;
