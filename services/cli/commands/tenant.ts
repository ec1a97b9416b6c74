import { type Command, Option } from "commander";
import { z } from "zod";
import { TIERS } from "#contracts/tenant";
import { failureOf } from "../http/api.ts";
import { withProgress } from "../terminal/progress.ts";
import { printJson, table } from "../terminal/table.ts";
import {
  allPages,
  jsonBody,
  ofState,
  shortMoment,
  type Tenant,
  tenantPath,
  tenantSchema,
} from "./admin-answers.ts";
import { showAudit } from "./audit.ts";
import { adminApiOf, forService, type ServiceOptions } from "./service-options.ts";

const LIST = "/admin/v1/tenants";
const listSchema = z
  .looseObject({ tenants: z.array(tenantSchema), next: z.string().optional() })
  .transform(({ tenants, next }) => ({ items: tenants, next }));

const tierOption = (): Option =>
  new Option("--tier <tier>", "how far its code is trusted").choices([...TIERS]);

/** Prints one tenant, after what was done to it. */
function print(tenant: Tenant, { json }: ServiceOptions, sentence: string): void {
  if (json) printJson(tenant);
  else process.stdout.write(`${sentence}\n`);
}

export const registerTenant = (program: Command): void => {
  const tenant = program
    .command("tenant")
    .description("tenants: who has functions, keys and quotas of their own")
    .addHelpText(
      "after",
      "\nThese commands use the admin key of DIR/credentials.json, or CLOISTER_KEY. A tenant is named by its name or its id.",
    );

  forService(
    tenant
      .command("create")
      .description("make a tenant")
      .argument("<name>", "1 to 63 letters, digits, dots, - and _; it never changes")
      .addOption(tierOption().default("standard")),
  ).action(async (name: string, options: ServiceOptions & { tier: string }) => {
    const body = jsonBody({ name, tier: options.tier });
    const made = await adminApiOf(options).json("POST", LIST, tenantSchema, body);
    print(made, options, `created ${made.name} (${made.tier}) ${made.id}`);
  });

  forService(
    tenant
      .command("ls")
      .description("list tenants")
      .addOption(tierOption())
      .addOption(new Option("--state <state>").choices(["active", "suspended"])),
  ).action(async (options: ServiceOptions & { tier?: string; state?: string }) => {
    const query = new URLSearchParams();
    if (options.tier) query.set("tier", options.tier);
    if (options.state) query.set("state", options.state);
    const tenants = await withProgress("Listing tenants", () =>
      allPages(adminApiOf(options), LIST, query, listSchema),
    );
    if (options.json) return printJson({ tenants });
    if (tenants.length === 0) {
      process.stdout.write("No such tenants. Make one with ./cloister tenant create <name>.\n");
      return;
    }
    const columns = ["NAME", "TIER", "STATE", "CREATED", "ID"].map((title) => ({ title }));
    const rows = tenants.map(({ name, tier, state, createdAt, id }) => [
      ...[name, tier, state],
      ...[shortMoment(createdAt), id],
    ]);
    process.stdout.write(table(columns, rows));
  });

  forService(tenant.command("show").description("show one tenant").argument("<tenant>")).action(
    async (name: string, options: ServiceOptions) => {
      const found = await adminApiOf(options).json("GET", tenantPath(name), tenantSchema);
      if (options.json) return printJson(found);
      const lines = [
        ["name", found.name],
        ["id", found.id],
        ["tier", found.tier],
        ["state", found.state],
        ["created", shortMoment(found.createdAt)],
        ["changed", shortMoment(found.updatedAt)],
      ] as const;
      for (const [what, value] of lines) process.stdout.write(`${what.padEnd(8)}  ${value}\n`);
    },
  );

  forService(
    tenant
      .command("set")
      .description("change a tenant")
      .argument("<tenant>")
      .addOption(tierOption().makeOptionMandatory()),
  ).action(async (name: string, options: ServiceOptions & { tier: string }) => {
    const api = adminApiOf(options);
    const path = tenantPath(name);
    const before = await api.json("GET", path, tenantSchema);
    const body = jsonBody({ tier: options.tier }, ofState(before));
    const after = await api.json("PATCH", path, tenantSchema, body);
    print(after, options, `${after.name} is ${after.tier} now, and was ${before.tier}`);
  });

  const turn = (name: "suspend" | "resume", description: string, sentence: string): void => {
    forService(tenant.command(name).description(description).argument("<tenant>")).action(
      async (which: string, options: ServiceOptions) => {
        const path = `${tenantPath(which)}/${name}`;
        const after = await adminApiOf(options).json("POST", path, tenantSchema);
        print(after, options, `${after.name} ${sentence}`);
      },
    );
  };
  turn(
    "suspend",
    "refuse a tenant's new work; what runs is finished",
    "is suspended: new work is refused, what runs is finished",
  );
  turn("resume", "serve a suspended tenant again", "is active");

  forService(
    tenant
      .command("rm")
      .description("delete a tenant with its functions and keys")
      .argument("<tenant>")
      .option("--force", "end what runs of it, instead of being refused"),
  ).action(async (name: string, options: ServiceOptions & { force?: boolean }) => {
    const query = options.force ? "?force=true" : "";
    const response = await adminApiOf(options).send("DELETE", `${tenantPath(name)}${query}`);
    if (!response.ok) throw await failureOf(response);
    if (options.json) printJson({ tenant: name, deleted: true });
    else process.stdout.write(`deleted ${name}\n`);
  });

  forService(
    tenant
      .command("audit")
      .description("what admins changed, newest first")
      .argument("[tenant]", "only of this one; one that is gone by its id")
      .option("--action <action>", "only this, e.g. tenant.suspend or key.create")
      .option("--since <moment>", "e.g. 2026-11-26T00:00:00Z")
      .option("-n, --limit <count>", "how many, at most 1000", "50"),
  ).action(showAudit);
};
