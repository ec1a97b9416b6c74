import { type Command, InvalidArgumentError } from "commander";
import { z } from "zod";
import { EXIT, Failure } from "../failure.ts";
import { type Api, failureOf, segment } from "../http/api.ts";
import { printJson, table } from "../terminal/table.ts";
import { jsonBody, tenantPath } from "./admin-answers.ts";
import { adminApiOf, apiOf, forService, type ServiceOptions } from "./service-options.ts";

type Value = number | string | string[] | null;
const valueSchema = z.union([z.number(), z.string(), z.array(z.string()), z.null()]);
const valuesSchema = z.record(z.string(), valueSchema);
const tenantQuotaSchema = z.looseObject({
  tier: z.string(),
  own: valuesSchema,
  use: z.record(z.string(), z.number().nullable()),
  over: z.array(z.string()),
});
const functionQuotaSchema = z.looseObject({ function: z.string(), own: valuesSchema });

/** What a flag says of its field: a value, null for no limit, undefined for what holds where nothing is set. */
type Wish = { value: Value } | { inherited: true };

interface Flag {
  field: string;
  flag: string;
  what: string;
  parse: (text: string) => Wish;
}

const inherited = (text: string): boolean => text === "plan" || text === "tenant";

/** The service checks bounds; here only what is no number at all is refused. */
function numberOf(text: string): Wish {
  if (inherited(text)) return { inherited: true };
  if (text === "none") return { value: null };
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value))
    throw new InvalidArgumentError("A number, none or plan is needed.");
  return { value };
}

const pathsOf = (text: string): Wish =>
  inherited(text)
    ? { inherited: true }
    : { value: text === "none" ? null : text.split(",").map((path) => path.trim()) };

const pathOf = (text: string): Wish =>
  inherited(text) ? { inherited: true } : { value: text === "none" ? null : text };

const LIMIT_FLAGS: Flag[] = [
  {
    field: "requestsPerSecond",
    flag: "--requests-per-second <n>",
    what: "calls a second in the long run",
    parse: numberOf,
  },
  {
    field: "burst",
    flag: "--burst <n>",
    what: "calls at once after a rest; default: those of one second",
    parse: numberOf,
  },
  {
    field: "concurrency",
    flag: "--concurrency <n>",
    what: "calls under way at once",
    parse: numberOf,
  },
  {
    field: "memoryMb",
    flag: "--memory <MiB>",
    what: "memory of one function",
    parse: numberOf,
  },
  {
    field: "timeoutMs",
    flag: "--timeout <ms>",
    what: "time of one call",
    parse: numberOf,
  },
];

const TENANT_FLAGS: Flag[] = [
  ...LIMIT_FLAGS,
  {
    field: "gbSecondsPerMonth",
    flag: "--gb-seconds <n>",
    what: "GB-seconds a month",
    parse: numberOf,
  },
  { field: "functions", flag: "--functions <n>", what: "functions", parse: numberOf },
  {
    field: "bundleBytes",
    flag: "--bundle-bytes <n>",
    what: "size of one bundle",
    parse: numberOf,
  },
  {
    field: "asyncBacklog",
    flag: "--async-backlog <n>",
    what: "asynchronous calls that wait",
    parse: numberOf,
  },
  {
    field: "paths",
    flag: "--paths <list>",
    what: "container, microvm, or both with a comma",
    parse: pathsOf,
  },
  {
    field: "minimumIsolation",
    flag: "--minimum-isolation <path>",
    what: "container or microvm",
    parse: pathOf,
  },
];

/** Adds a flag for each field. */
function withFlags(command: Command, flags: readonly Flag[]): Command {
  for (const { flag, what, parse } of flags) command.option(flag, what, parse);
  return command;
}

/** `--requests-per-second` as commander names it. */
const optionName = (flag: string): string =>
  flag.replace(/^--| .*$/g, "").replaceAll(/-(.)/g, (_, letter: string) => letter.toUpperCase());

type Wishes = Record<string, Wish | undefined>;

/** What was set before, with what the flags say in its place. */
function changed(
  own: Record<string, Value>,
  flags: readonly Flag[],
  options: Wishes,
): Record<string, Value> {
  const next = { ...own };
  for (const { field, flag } of flags) {
    const wish = options[optionName(flag)];
    if (!wish) continue;
    if ("inherited" in wish) delete next[field];
    else next[field] = wish.value;
  }
  return next;
}

const asked = (flags: readonly Flag[], options: Wishes): boolean =>
  flags.some(({ flag }) => options[optionName(flag)] !== undefined);

/** Reads, changes and writes back what was read: when somebody else comes between, nothing is lost and the command says so. */
async function change<T extends { own: Record<string, Value> }>(
  api: Api,
  path: string,
  schema: z.ZodType<T>,
  next: (before: T) => Record<string, Value>,
): Promise<T> {
  const response = await api.send("GET", path);
  if (!response.ok) throw await failureOf(response);
  const before = schema.parse(await response.json());
  const ifMatch: Record<string, string> = { "if-match": response.headers.get("etag") ?? "*" };
  return api.json("PUT", path, schema, jsonBody(next(before), ifMatch));
}

/** Limits of kinds, not of amounts. */
const NOT_LIMITED: Record<string, string> = { paths: "all", minimumIsolation: "none" };

const shown = (field: string, value: unknown): string =>
  value === null || value === undefined
    ? (NOT_LIMITED[field] ?? "unlimited")
    : Array.isArray(value)
      ? value.join(",")
      : String(value);

const used = (value: number | null | undefined): string =>
  value === null || value === undefined ? "-" : String(Math.round(value * 1000) / 1000);

function printTenant(name: string, answer: z.infer<typeof tenantQuotaSchema>): void {
  const { own, use, over, tier } = answer;
  const rows = TENANT_FLAGS.map(({ field }) => [
    field,
    shown(field, answer[field]),
    used(use[field]),
    field in own ? "set" : `plan ${tier}`,
  ]);
  const columns = [
    { title: "QUOTA" },
    { title: "LIMIT", right: true },
    { title: "USED", right: true },
    { title: "FROM" },
  ];
  process.stdout.write(table(columns, rows));
  if (over.length > 0)
    process.stderr.write(
      `${name} uses more than that now: ${over.join(", ")}. What runs goes on, new work is refused.\n`,
    );
}

export const registerQuota = (program: Command): void => {
  const quota = program
    .command("quota")
    .description("what tenants may have, and what functions may of that")
    .addHelpText(
      "after",
      "\nshow and set use the admin key of DIR/credentials.json, or CLOISTER_KEY. A tenant is named by its name or its id.",
    );

  forService(
    quota
      .command("show")
      .description("show what a tenant may have and what it uses of it")
      .argument("<tenant>"),
  ).action(async (name: string, options: ServiceOptions) => {
    const path = `${tenantPath(name)}/quota`;
    const answer = await adminApiOf(options).json("GET", path, tenantQuotaSchema);
    if (options.json) printJson(answer);
    else printTenant(name, answer);
  });

  forService(
    withFlags(
      quota
        .command("set")
        .description(
          "set what a tenant may have: a number, none for no limit, or plan for what its tier has",
        )
        .argument("<tenant>")
        .option("--reset", "forget what was set before"),
      TENANT_FLAGS,
    ),
  ).action(async (name: string, options: ServiceOptions & { reset?: boolean }) => {
    const wishes = options as unknown as Wishes;
    if (!options.reset && !asked(TENANT_FLAGS, wishes)) throw nothingToSet("set <tenant>");
    const answer = await change(
      adminApiOf(options),
      `${tenantPath(name)}/quota`,
      tenantQuotaSchema,
      ({ own }) => changed(options.reset ? {} : own, TENANT_FLAGS, wishes),
    );
    if (options.json) printJson(answer);
    else printTenant(name, answer);
  });

  forService(
    withFlags(
      quota
        .command("function")
        .description(
          "show what one of your functions may have, or allow it less than its tenant: a number, or tenant for what that has",
        )
        .argument("<name>"),
      LIMIT_FLAGS,
    ),
  ).action(async (name: string, options: ServiceOptions) => {
    const wishes = options as unknown as Wishes;
    const api = apiOf(options);
    const path = `/v1/functions/${segment(name)}/quota`;
    const answer = asked(LIMIT_FLAGS, wishes)
      ? await change(api, path, functionQuotaSchema, ({ own }) => changed(own, LIMIT_FLAGS, wishes))
      : await api.json("GET", path, functionQuotaSchema);
    if (options.json) return printJson(answer);
    const rows = LIMIT_FLAGS.map(({ field }) => [
      field,
      shown(field, answer[field]),
      answer.own[field] == null ? "tenant" : "set",
    ]);
    const columns = [{ title: "QUOTA" }, { title: "LIMIT", right: true }, { title: "FROM" }];
    process.stdout.write(table(columns, rows));
  });
};

const nothingToSet = (command: string): Failure =>
  new Failure(
    "Nothing is to be set.",
    `Name a field, e.g. --concurrency 10; ./cloister quota ${command} --help lists them.`,
    EXIT.usage,
  );
