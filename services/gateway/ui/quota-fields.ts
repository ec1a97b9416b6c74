import { pathSchema } from "#contracts/function";
import { type Quota, type QuotaField, type TenantQuota, tenantQuotaSchema } from "#contracts/quota";
import type { Errors } from "./forms.ts";
import { issueWords } from "./issue-words.ts";
import { bytes, count, duration } from "./words.ts";

export interface QuotaRow {
  field: QuotaField;
  label: string;
  /** What its number counts. */
  unit: string;
  shown: (value: number) => string;
}

const perSecond = (value: number): string => `${value.toLocaleString("en-GB")}/s`;
const mebibytes = (value: number): string => bytes(value * 1024 * 1024);

/** The quotas that are numbers, in the order they are shown. */
export const NUMBERS: readonly QuotaRow[] = [
  { field: "requestsPerSecond", label: "Requests a second", unit: "calls/s", shown: perSecond },
  { field: "burst", label: "Burst", unit: "calls", shown: count },
  { field: "concurrency", label: "Calls at once", unit: "calls", shown: count },
  { field: "gbSecondsPerMonth", label: "GB-seconds a month", unit: "GB·s", shown: count },
  { field: "functions", label: "Functions", unit: "", shown: count },
  { field: "memoryMb", label: "Memory of a function", unit: "MiB", shown: mebibytes },
  { field: "timeoutMs", label: "Time of a call", unit: "ms", shown: duration },
  { field: "bundleBytes", label: "Bundle", unit: "bytes", shown: bytes },
  { field: "asyncBacklog", label: "Asynchronous backlog", unit: "calls", shown: count },
];

/** The fields of the form, in its order. */
export const QUOTA_INPUTS: readonly QuotaField[] = [
  ...NUMBERS.map(({ field }) => field),
  "paths",
  "minimumIsolation",
];

export const UNLIMITED = "unlimited";
const BOTH = pathSchema.options.join(",");

/** The answers a list of paths can have in the form. */
export const PATH_CHOICES = [
  { value: UNLIMITED, label: "all there are" },
  { value: BOTH, label: "container and microvm" },
  ...pathSchema.options.map((path) => ({ value: path, label: `${path} only` })),
];
export const MINIMUM_CHOICES = [
  { value: UNLIMITED, label: "none" },
  ...pathSchema.options.map((path) => ({ value: path, label: path })),
];

/** What an administrator has typed, by field; an empty one is the plan's. */
export type QuotaText = Partial<Record<QuotaField, string>>;

/** The form of a quota that was set. */
export function textOf(own: TenantQuota): QuotaText {
  const text: QuotaText = {};
  for (const [field, value] of Object.entries(own)) {
    if (value === undefined) continue;
    text[field as QuotaField] =
      value === null
        ? UNLIMITED
        : Array.isArray(value)
          ? [...value].sort().join(",")
          : String(value);
  }
  return text;
}

/** A value as people read it. */
export function shownValue(field: QuotaField, value: Quota[QuotaField]): string {
  if (value === null) return field === "minimumIsolation" ? "none" : UNLIMITED;
  if (Array.isArray(value)) return value.join(" and ");
  const row = NUMBERS.find((one) => one.field === field);
  return typeof value === "number" ? (row?.shown(value) ?? String(value)) : String(value);
}

/** Reads what was typed, by the same schema as the API's. */
export function readQuota(text: QuotaText): { own: TenantQuota } | { errors: Errors } {
  const errors: Record<string, string> = {};
  const wanted: Record<string, unknown> = {};
  for (const [field, typed] of Object.entries(text)) {
    const word = typed.trim();
    if (word === "") continue;
    if (word.toLowerCase() === UNLIMITED) wanted[field] = null;
    else if (field === "paths") wanted[field] = word.split(",");
    else if (field === "minimumIsolation") wanted[field] = word;
    // Spaces may stand between thousands; commas may not, which mean two things.
    else if (/^[+-]?[\d\s_]+(?:\.\d+)?$/.test(word))
      wanted[field] = Number(word.replaceAll(/[\s_]/g, ""));
    else
      errors[field] =
        `${labelOf(field)}: a number or the word ${UNLIMITED}, not ${word.slice(0, 40)}`;
  }
  const parsed = tenantQuotaSchema.safeParse(wanted);
  if (!parsed.success)
    for (const issue of parsed.error.issues) {
      const field = String(issue.path[0] ?? "");
      errors[field] ??= `${labelOf(field)}: ${issueWords(issue)}`;
    }
  // In the order of the form.
  const ordered = ["", ...QUOTA_INPUTS].flatMap((field): [string, string][] =>
    errors[field] === undefined ? [] : [[field, errors[field]]],
  );
  if (ordered.length > 0) return { errors: Object.fromEntries(ordered) };
  return { own: parsed.data as TenantQuota };
}

export function labelOf(field: string): string {
  if (field === "paths") return "Paths";
  if (field === "minimumIsolation") return "Minimum isolation";
  return NUMBERS.find((one) => one.field === field)?.label ?? field;
}
