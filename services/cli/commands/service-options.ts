import type { Command } from "commander";
import { Api, readAdminCredentials, readCredentials } from "../http/api.ts";

/** Options of every command that talks to the service. */
export interface ServiceOptions {
  dataDir?: string;
  json?: boolean;
}

/** Adds --json, and `--data-dir` for which instance is meant (`--data` would be an invocation's event elsewhere). */
export const forService = (command: Command): Command =>
  command
    .option(
      "--data-dir <folder>",
      "data folder of the service (default: CLOISTER_DATA, else /var/lib/cloister)",
    )
    .option("--json", "print JSON for scripts");

export const apiOf = (options: { dataDir?: string }): Api =>
  new Api(readCredentials(options.dataDir));

/** The same with the admin key, for the admin API. */
export const adminApiOf = (options: { dataDir?: string }): Api =>
  new Api(readAdminCredentials(options.dataDir));
