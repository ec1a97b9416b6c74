import {
  CPU_US_PER_SECOND,
  HOUR_MS,
  MIB_MS_PER_GB_SECOND,
  USAGE_PATHS,
  USAGE_STATUSES,
} from "#contracts/usage";
import type { Database } from "#db/database";
import { type HourRange, readUsageHours, type UsageHour } from "#db/usage";
import { rfc3339 } from "./range.ts";

/** Hours that are read and written at a time: a month. */
const PAGE_HOURS = 744;
/** RFC 4180. */
const LINE_END = "\r\n";

const HEADING = [
  ...["tenant", "hour", "invocations", "gb_seconds", "cpu_seconds", "egress_bytes"],
  ...["storage_bytes", ...USAGE_PATHS.map((path) => `path_${path}`)],
  ...USAGE_STATUSES.map((status) => `status_${status}`),
];

/** A line of a table. No field needs quotes: ids, times and numbers have neither comma, quote nor line end. */
const line = (fields: readonly (string | number)[]): string => `${fields.join(",")}${LINE_END}`;

const lineOf = (tenantId: string, hour: UsageHour): string =>
  line([
    tenantId,
    rfc3339(hour.hourMs),
    hour.invocations,
    hour.mibMs / MIB_MS_PER_GB_SECOND,
    hour.cpuUs / CPU_US_PER_SECOND,
    hour.egressBytes,
    hour.storageBytes,
    ...USAGE_PATHS.map((path) => hour.byPath[path] ?? 0),
    ...USAGE_STATUSES.map((status) => hour.byStatus[status] ?? 0),
  ]);

/** A tenant's hours as CSV, read from the database as fast as they are taken. Rejects when not even the first can be read. */
export async function usageCsv(
  db: Database,
  tenantId: string,
  { fromMs, toMs }: HourRange,
): Promise<ReadableStream<Uint8Array>> {
  let nextMs = fromMs;
  const page = async (): Promise<string> => {
    const range = { fromMs: nextMs, toMs: Math.min(toMs, nextMs + PAGE_HOURS * HOUR_MS) };
    nextMs = range.toMs;
    const hours = await readUsageHours(db, tenantId, range);
    return hours.map((hour) => lineOf(tenantId, hour)).join("");
  };
  let text: string | undefined = line(HEADING) + (await page());
  const encoder = new TextEncoder();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        controller.enqueue(encoder.encode(text ?? (await page())));
        text = undefined;
        if (nextMs >= toMs) controller.close();
      },
    },
    { highWaterMark: 0 },
  );
}
