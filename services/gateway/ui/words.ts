import { figure } from "#report/markup";
import { type Html, html } from "./html.ts";

/** Whole numbers with their thousands. */
export const count = (value: number): string => Math.round(value).toLocaleString("en-GB");

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(value: number): string {
  const power = Math.min(SIZES.length - 1, Math.max(0, Math.floor(Math.log2(value || 1) / 10)));
  return `${figure(value / 1024 ** power)} ${SIZES[power]}`;
}

const UNITS: [ms: number, unit: string][] = [
  [86_400_000, "d"],
  [3_600_000, "h"],
  [60_000, "min"],
  [1000, "s"],
];

/** A length of time in its largest unit. */
export function duration(ms: number): string {
  for (const [size, unit] of UNITS) if (ms >= size) return `${figure(ms / size)} ${unit}`;
  return `${figure(ms)} ms`;
}

/** A moment, UTC, to the second. */
export const moment = (at: Date): Html =>
  html`<time datetime="${at.toISOString()}">${at.toISOString().slice(0, 19).replace("T", " ")}</time>`;

export const momentOr = (at: Date | undefined, none: string): Html =>
  at ? moment(at) : html`<span class="faint">${none}</span>`;

/** `path` and a query of those fields that are there. */
export function address(path: string, query: Record<string, string | number | undefined>): string {
  const fields = Object.entries(query).flatMap(([name, value]): [string, string][] =>
    value === undefined || value === "" ? [] : [[name, String(value)]],
  );
  return fields.length === 0 ? path : `${path}?${new URLSearchParams(fields)}`;
}
