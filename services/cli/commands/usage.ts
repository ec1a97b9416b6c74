import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Command, Option } from "commander";
import { z } from "zod";
import { EXIT, Failure } from "../failure.ts";
import { type Api, failureOf, segment } from "../http/api.ts";
import { withProgress } from "../terminal/progress.ts";
import { bold, printJson, table } from "../terminal/table.ts";
import { adminApiOf, apiOf, forService } from "./service-options.ts";

interface UsageOptions {
  from?: string;
  to?: string;
  csv?: boolean;
  byFunction?: boolean;
  reconcile?: boolean;
  dataDir?: string;
  json?: boolean;
}

const used = {
  invocations: z.number(),
  gbSeconds: z.number(),
  cpuSeconds: z.number(),
  egressBytes: z.number(),
};
const counts = z.record(z.string(), z.number());
const parts = { byPath: counts, byStatus: counts };
const hourSchema = z.looseObject({ hour: z.string(), ...used, storageBytes: z.number(), ...parts });
const functionSchema = z.looseObject({
  functionId: z.string(),
  name: z.string().optional(),
  ...used,
});
const usageSchema = z.looseObject({
  tenant: z.string(),
  from: z.string(),
  to: z.string(),
  totals: z.looseObject({
    ...used,
    storageBytes: z.number(),
    storageByteHours: z.number(),
    ...parts,
  }),
  hours: z.array(hourSchema),
  functions: z.array(functionSchema).optional(),
  next: z.string().optional(),
});
const reconciliationSchema = z.looseObject({
  from: z.string(),
  to: z.string(),
  records: z.number(),
  differences: z.array(z.looseObject({ tenant: z.string(), hour: z.string() })),
});

type Usage = z.infer<typeof usageSchema>;
type Used = { [What in keyof typeof used]: number };

export const registerUsage = (program: Command): void => {
  forService(
    program
      .command("usage")
      .description("what a tenant has used: invocations, GB-seconds, CPU-seconds, bytes")
      .argument("[tenant]", "name or id, with the admin key; default: the tenant of your own key")
      .option("--from <time>", "2026-11, 2026-11-26 or 2026-11-26T03:00:00Z (default: this month)")
      .option("--to <time>", "the same; its hour is left out (default: the end of this hour)")
      .option("--by-function", "tell functions apart")
      .addOption(new Option("--csv", "print every hour as CSV").conflicts(["json", "byFunction"]))
      .addOption(
        new Option(
          "--reconcile",
          "compare the usage of all tenants with the records of their invocations",
        ).conflicts(["csv", "byFunction"]),
      ),
  ).action(async (tenant: string | undefined, options: UsageOptions) => {
    if (options.reconcile) return reconcile(tenant, options);
    const api = tenant === undefined ? apiOf(options) : adminApiOf(options);
    const address =
      tenant === undefined ? "/v1/usage" : `/admin/v1/tenants/${segment(tenant)}/usage`;
    const query = queryOf(options);
    if (options.csv) return printCsv(api, address, query);
    if (options.byFunction) query.set("by", "function");
    const usage = await withProgress("reading usage", () => readAll(api, address, query));
    if (options.json) printJson(usage);
    else process.stdout.write(shown(usage, tenant));
  });
};

function queryOf({ from, to }: UsageOptions): URLSearchParams {
  const query = new URLSearchParams();
  if (from !== undefined) query.set("from", momentOf("--from", from));
  if (to !== undefined) query.set("to", momentOf("--to", to));
  return query;
}

/** A month or a day stands for its beginning, in UTC as all of usage. */
function momentOf(option: string, text: string): string {
  const full = /^\d{4}-\d\d$/.test(text)
    ? `${text}-01T00:00:00Z`
    : /^\d{4}-\d\d-\d\d$/.test(text)
      ? `${text}T00:00:00Z`
      : text;
  if (z.iso.datetime({ offset: true }).safeParse(full).success) return full;
  throw new Failure(
    `${option} ${text} is no time.`,
    "Write a month (2026-11), a day (2026-11-26) or a time (2026-11-26T03:00:00Z).",
    EXIT.usage,
  );
}

async function readAll(api: Api, address: string, query: URLSearchParams): Promise<Usage> {
  const { next: more, ...usage } = await api.json("GET", `${address}?${query}`, usageSchema);
  for (let next = more; next !== undefined; ) {
    // The first answer may have been given in another hour than the next: its range holds for all.
    const page = new URLSearchParams({ from: usage.from, to: usage.to, after: next });
    const { hours, next: after } = await api.json("GET", `${address}?${page}`, usageSchema);
    usage.hours.push(...hours);
    next = after;
  }
  return usage;
}

async function printCsv(api: Api, address: string, query: URLSearchParams): Promise<void> {
  query.set("format", "csv");
  const response = await api.send("GET", `${address}?${query}`);
  if (!response.ok || !response.body) throw await failureOf(response);
  await pipeline(Readable.fromWeb(response.body), process.stdout, { end: false });
}

async function reconcile(tenant: string | undefined, options: UsageOptions): Promise<void> {
  if (tenant !== undefined)
    throw new Failure(
      "--reconcile compares the usage of all tenants.",
      "Leave out the tenant.",
      EXIT.usage,
    );
  const address = `/admin/v1/usage/reconciliation?${queryOf(options)}`;
  const found = await withProgress("comparing usage with records", () =>
    adminApiOf(options).json("GET", address, reconciliationSchema),
  );
  const { from, to, records, differences } = found;
  if (options.json) printJson(found);
  else if (differences.length === 0)
    process.stdout.write(
      `${from} to ${to}: the usage of ${records} records is exactly what they say\n`,
    );
  for (const difference of options.json ? [] : differences) printJson(difference);
  if (differences.length > 0)
    throw new Failure(
      `Usage differs from the records in ${differences.length} places.`,
      "Both are written together, so somebody has changed one of the tables by hand; the records are right.",
    );
}

/** Up to two days are shown by the hour, more by the day. */
const HOURS_SHOWN = 48;

function shown(usage: Usage, tenant: string | undefined): string {
  const { from, to, hours, totals, functions } = usage;
  const byHour = hours.length <= HOURS_SHOWN;
  const rows = new Map<string, Used & { storageBytes: number; failed: number }>();
  for (const hour of hours) {
    const name = byHour ? hour.hour : hour.hour.slice(0, 10);
    const row = rows.get(name) ?? { ...NOTHING, storageBytes: 0, failed: 0 };
    add(row, hour);
    row.failed += hour.invocations - (hour.byStatus.ok ?? 0);
    row.storageBytes = Math.max(row.storageBytes, hour.storageBytes);
    rows.set(name, row);
  }
  const columns = [
    { title: byHour ? "HOUR" : "DAY" },
    ...["INVOCATIONS", "NOT OK", "GB-SECONDS", "CPU-SECONDS", "EGRESS", "STORED"].map((title) => ({
      title,
      right: true,
    })),
  ];
  const cells = (name: string, row: Used, failed: number, stored: number): string[] => [
    name,
    `${row.invocations}`,
    `${failed}`,
    seconds(row.gbSeconds),
    seconds(row.cpuSeconds),
    bytes(row.egressBytes),
    bytes(stored),
  ];
  const lines = [...rows]
    .filter(([, row]) => row.invocations !== 0)
    .map(([name, row]) => cells(name, row, row.failed, row.storageBytes));
  const notOk = totals.invocations - (totals.byStatus.ok ?? 0);
  lines.push(cells("total", totals, notOk, totals.storageBytes));
  const list = (numbers: Record<string, number>): string =>
    Object.entries(numbers)
      .map(([name, count]) => `${name} ${count}`)
      .join(", ") || "none";
  const head = `${tenant ?? "your tenant"} (${usage.tenant}), ${from} to ${to}`;
  return [
    `${bold(head)}\n`,
    table(columns, lines),
    `by path: ${list(totals.byPath)}\n`,
    `by status: ${list(totals.byStatus)}\n`,
    ...(functions ? ["\n", functionTable(functions)] : []),
  ].join("");
}

const functionTable = (functions: z.infer<typeof functionSchema>[]): string =>
  table(
    [
      { title: "FUNCTION" },
      ...["INVOCATIONS", "GB-SECONDS", "CPU-SECONDS", "EGRESS"].map((title) => ({
        title,
        right: true,
      })),
    ],
    functions.map((one) => [
      one.name ?? `${one.functionId} (removed)`,
      `${one.invocations}`,
      seconds(one.gbSeconds),
      seconds(one.cpuSeconds),
      bytes(one.egressBytes),
    ]),
  );

const NOTHING: Used = { invocations: 0, gbSeconds: 0, cpuSeconds: 0, egressBytes: 0 };

function add(sum: Used, more: Used): void {
  for (const what of Object.keys(NOTHING) as (keyof Used)[]) sum[what] += more[what];
}

const seconds = (value: number): string => value.toFixed(value < 100 ? 3 : 1);

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
function bytes(value: number): string {
  const unit = value === 0 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(value) / 10));
  return unit === 0 ? `${value} B` : `${(value / 1024 ** unit).toFixed(1)} ${UNITS[unit]}`;
}
