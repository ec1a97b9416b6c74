/** Text as it may stand in HTML and SVG, also in a quoted attribute. */
export const escapeText = (text: string): string =>
  text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");

/** A number as people read it: three digits that count, no more than they need. */
export function figure(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "-";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 10_000) return Math.round(value).toLocaleString("en-GB");
  if (size >= 100) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}
