import { type Html, html } from "./html.ts";

export interface Column {
  title: string;
  /** Numbers stand right. */
  number?: boolean;
}

export interface Table {
  caption: string;
  columns: readonly Column[];
  /** The first cell of a row names it. */
  rows: readonly (readonly (Html | string)[])[];
  /** Said when there are no rows. */
  none: string;
}

/** A table that scrolls by itself where it is wider than the page. */
export function table({ caption, columns, rows, none }: Table): Html {
  const kind = (index: number): Html | false =>
    columns[index]?.number === true && html` class="number"`;
  if (rows.length === 0) return html`<p class="none">${none}</p>`;
  return html`<div class="table" role="region" tabindex="0" aria-label="${caption}"><table>
<caption>${caption}</caption>
<thead><tr>${columns.map(({ title }, index) => html`<th scope="col"${kind(index)}>${title}</th>`)}</tr></thead>
<tbody>${rows.map(
    (cells) =>
      html`<tr>${cells.map((cell, index) =>
        index === 0
          ? html`<th scope="row"${kind(index)}>${cell}</th>`
          : html`<td${kind(index)}>${cell}</td>`,
      )}</tr>\n`,
  )}</tbody></table></div>`;
}

/** Names and values, one pair a line. */
export const facts = (pairs: readonly (readonly [string, Html | string])[]): Html =>
  html`<dl class="facts">${pairs.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;

/** A name somebody else has chosen: of any length, in any script. */
export const named = (name: string): Html => html`<bdi class="name">${name}</bdi>`;

export type Mood = "good" | "warn" | "bad" | "plain";
const SIGNS: Record<Mood, string> = { good: "●", warn: "▲", bad: "■", plain: "○" };

/** A state: told by its word and the shape of its sign, and by colour beside them. */
export const state = (word: string, mood: Mood): Html =>
  html`<span class="state ${mood}"><span aria-hidden="true">${SIGNS[mood]}</span> ${word}</span>`;

/** How much of a limit is used: a bar, and the same in words. */
export function useBar(used: number, most: number, words: string): Html {
  const part = most > 0 ? Math.min(1, used / most) : used > 0 ? 1 : 0;
  const mood = used > most ? "bad" : part >= 0.8 ? "warn" : "good";
  return html`<span class="use"><svg class="bar ${mood}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="whole" width="100" height="8"/><rect class="part" width="${Math.round(part * 1000) / 10}" height="8"/></svg><span class="words">${words}${used > most && html` <strong>over</strong>`}</span></span>`;
}
