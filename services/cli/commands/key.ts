import { type Command, InvalidArgumentError } from "commander";
import { z } from "zod";
import { SCOPES } from "#contracts/tenant";
import { failureOf, segment } from "../http/api.ts";
import { printJson, table } from "../terminal/table.ts";
import {
  allPages,
  clearKeySchema,
  jsonBody,
  keySchema,
  ofState,
  shortMoment,
  tenantPath,
} from "./admin-answers.ts";
import { parseDuration, parseExpiry } from "./moments.ts";
import { adminApiOf, forService, type ServiceOptions } from "./service-options.ts";

interface KeyOptions extends ServiceOptions {
  tenant: string;
}

const listSchema = z
  .looseObject({ keys: z.array(keySchema), next: z.string().optional() })
  .transform(({ keys, next }) => ({ items: keys, next }));

const keysPath = (tenant: string): string => `${tenantPath(tenant)}/keys`;
const keyPath = (tenant: string, id: string): string => `${keysPath(tenant)}/${segment(id)}`;

function parseScopes(text: string): string[] {
  const scopes = text.split(",").map((scope) => scope.trim());
  const wrong = scopes.find((scope) => !SCOPES.some((known) => known === scope));
  if (wrong !== undefined)
    throw new InvalidArgumentError(`Scopes are ${SCOPES.join(", ")}, with commas between them.`);
  return [...new Set(scopes)];
}

/** Adds --tenant, --data-dir and --json. */
const forTenant = (command: Command): Command =>
  forService(command.requiredOption("--tenant <tenant>", "whose key, by name or id"));

/** The key alone on stdout, so that a script can take it; what is to be known about it on stderr. */
function printKey(key: z.infer<typeof clearKeySchema>, options: KeyOptions, said: string): void {
  if (options.json) printJson(key);
  else {
    process.stdout.write(`${key.key}\n`);
    process.stderr.write(`${said} It is not shown again.\n`);
  }
}

export const registerKey = (program: Command): void => {
  const key = program
    .command("key")
    .description("keys of a tenant")
    .addHelpText(
      "after",
      "\nThese commands use the admin key of DIR/credentials.json, or CLOISTER_KEY: that of the operator, or an admin key of the same tenant.",
    );

  forTenant(
    key
      .command("create")
      .description("make a key and print it, this once")
      .argument("<name>", "what it is for")
      .requiredOption("--scopes <scopes>", `of ${SCOPES.join(", ")}, with commas`, parseScopes)
      .option("--expires <when>", "e.g. 30d, 12h or 2027-01-31 (UTC); default: never", parseExpiry),
  ).action(async (name: string, options: KeyOptions & { scopes: string[]; expires?: string }) => {
    const { tenant, scopes, expires } = options;
    const body = jsonBody({ name, scopes, ...(expires ? { expiresAt: expires } : {}) });
    const api = adminApiOf(options);
    const made = await api.json("POST", keysPath(tenant), clearKeySchema, body);
    const until = made.expiresAt ? `, until ${shortMoment(made.expiresAt)}` : "";
    printKey(made, options, `${made.id} may ${scopes.join(", ")}${until}.`);
  });

  forTenant(key.command("ls").description("list a tenant's keys, also revoked ones")).action(
    async (options: KeyOptions) => {
      const path = keysPath(options.tenant);
      const keys = await allPages(adminApiOf(options), path, new URLSearchParams(), listSchema);
      if (options.json) return printJson({ keys });
      if (keys.length === 0) {
        process.stdout.write(
          "No keys. Make one with ./cloister key create <name> --tenant <tenant>.\n",
        );
        return;
      }
      const titles = ["NAME", "SCOPES", "STATE", "LAST USE", "EXPIRES", "ID"];
      const rows = keys.map((one) => [
        ...[one.name, one.scopes.join(","), one.state],
        ...[shortMoment(one.lastUsedAt), shortMoment(one.expiresAt), one.id],
      ]);
      process.stdout.write(
        table(
          titles.map((title) => ({ title })),
          rows,
        ),
      );
    },
  );

  forTenant(
    key
      .command("rotate")
      .description("give a key a new secret and print it, this once")
      .argument("<id>")
      .option(
        "--grace <time>",
        "how long the old one is still taken, at most 24h",
        parseDuration,
        0,
      ),
  ).action(async (id: string, options: KeyOptions & { grace: number }) => {
    const api = adminApiOf(options);
    const path = keyPath(options.tenant, id);
    const before = await api.json("GET", path, keySchema);
    const body = jsonBody({ graceMs: options.grace }, ofState(before));
    const rotated = await api.json("POST", `${path}/rotate`, clearKeySchema, body);
    const old = rotated.previousUntil
      ? `taken until ${shortMoment(rotated.previousUntil)}`
      : "not taken any more";
    const own = api.keyId === rotated.id;
    printKey(
      rotated,
      options,
      `The old secret of ${rotated.id} (${rotated.name}) is ${old}.${own ? ` ${OWN_KEY}` : ""}`,
    );
  });

  forTenant(key.command("revoke").description("end a key's use for good").argument("<id>")).action(
    async (id: string, options: KeyOptions) => {
      const response = await adminApiOf(options).send("DELETE", keyPath(options.tenant, id));
      if (!response.ok) throw await failureOf(response);
      if (options.json) printJson({ id, revoked: true });
      else process.stdout.write(`revoked ${id}\n`);
    },
  );
};

const OWN_KEY =
  "These commands use that key: put the new one into keys.json and credentials.json of the data folder, or set CLOISTER_KEY.";
