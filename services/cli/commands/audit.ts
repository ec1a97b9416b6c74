import { z } from "zod";
import { printJson, table } from "../terminal/table.ts";
import { shortMoment } from "./admin-answers.ts";
import { adminApiOf, type ServiceOptions } from "./service-options.ts";

const stateSchema = z.record(z.string(), z.unknown()).optional();
const entrySchema = z.looseObject({
  at: z.string(),
  action: z.string(),
  tenantId: z.string(),
  subject: z.string(),
  keyId: z.string(),
  before: stateSchema,
  after: stateSchema,
  request: z.looseObject({ address: z.string().optional() }),
});
const pageSchema = z.looseObject({ entries: z.array(entrySchema) });
type Entry = z.infer<typeof entrySchema>;

export interface AuditOptions extends ServiceOptions {
  action?: string;
  since?: string;
  limit: string;
}

/** Prints the audit log, of one tenant or of all. */
export async function showAudit(tenant: string | undefined, options: AuditOptions): Promise<void> {
  const query = new URLSearchParams({ limit: options.limit });
  if (tenant !== undefined) query.set("tenant", tenant);
  if (options.action !== undefined) query.set("action", options.action);
  if (options.since !== undefined) query.set("since", options.since);
  const page = await adminApiOf(options).json("GET", `/admin/v1/audit?${query}`, pageSchema);
  if (options.json) return printJson(page);
  if (page.entries.length === 0) {
    process.stdout.write("Nothing of that kind was changed.\n");
    return;
  }
  const columns = ["AT", "ACTION", "WHAT", "CHANGE", "BY", "FROM"].map((title) => ({ title }));
  const rows = page.entries.map((entry) => [
    shortMoment(entry.at),
    entry.action,
    whatOf(entry),
    changeOf(entry),
    entry.keyId,
    entry.request.address ?? "",
  ]);
  process.stdout.write(table(columns, rows));
}

function whatOf({ subject, before, after }: Entry): string {
  const name = after?.name ?? before?.name;
  return typeof name === "string" && name !== "" ? `${name} (${subject})` : subject;
}

/** Which fields are others now: all of what is new, none of what is gone. */
function changeOf({ before, after }: Entry): string {
  if (!after) return "";
  const names = Object.keys({ ...before, ...after }).filter((name) => name !== "name" || before);
  return names
    .filter((name) => JSON.stringify(before?.[name]) !== JSON.stringify(after[name]))
    .filter((name) => before || after[name] !== null)
    .map((name) =>
      before
        ? `${name} ${plain(before[name])} -> ${plain(after[name])}`
        : `${name} ${plain(after[name])}`,
    )
    .join(", ");
}

const plain = (value: unknown): string =>
  value === undefined || value === null
    ? "none"
    : Array.isArray(value)
      ? value.join("+")
      : typeof value === "object"
        ? JSON.stringify(value)
        : String(value);
