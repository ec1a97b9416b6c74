import { InvalidArgumentError } from "commander";

const UNITS: Record<string, number> = {
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** `90s`, `15m`, `12h`, `30d` or `0`, in ms. */
export function parseDuration(text: string): number {
  const match = /^(\d{1,6})([smhd])$/.exec(text);
  if (match) return Number(match[1]) * (UNITS[match[2] ?? ""] ?? 0);
  if (text === "0") return 0;
  throw new InvalidArgumentError("Write it as 90s, 15m, 12h, 30d or 0.");
}

/** A duration from now, a day (its beginning, UTC) or a moment with its zone; as a moment in UTC. */
export function parseExpiry(text: string): string {
  if (/^\d+[smhd]$/.test(text)) return new Date(Date.now() + parseDuration(text)).toISOString();
  const day = /^\d{4}-\d\d-\d\d$/.test(text);
  const moment = new Date(day ? `${text}T00:00:00Z` : text);
  const isMoment = day || /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/.test(text);
  // Date takes the 30th of February for the 2nd of March.
  const real = !Number.isNaN(moment.getTime()) && (!day || moment.toISOString().startsWith(text));
  if (isMoment && real) return moment.toISOString();
  throw new InvalidArgumentError("Write it as 30d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z.");
}
