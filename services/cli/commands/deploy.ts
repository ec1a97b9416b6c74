import { type Command, InvalidArgumentError, Option } from "commander";
import { z } from "zod";
import { isolationSchema, LIMITS, RUNTIMES } from "#contracts/function";
import { packFunction } from "../bundle/pack.ts";
import { Failure } from "../failure.ts";
import { withProgress } from "../terminal/progress.ts";
import { printJson } from "../terminal/table.ts";
import { awaitSnapshot, snapshotLine } from "./awaited-snapshot.ts";
import { apiOf, forService } from "./service-options.ts";

export const deployedSchema = z.looseObject({
  name: z.string(),
  version: z.number(),
  url: z.string(),
});

export interface DeployOptions {
  name?: string;
  runtime?: string;
  entry?: string;
  isolation?: string;
  memory?: number;
  timeout?: number;
  env?: Record<string, string>;
  public?: boolean;
  /** Whether to wait for the snapshot. */
  wait?: boolean;
  dataDir?: string;
  json?: boolean;
}

const wholeNumber = (text: string): number => {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("A whole number is needed.");
  return Number(text);
};

const addVariable = (text: string, sofar: Record<string, string> = {}): Record<string, string> => {
  const at = text.indexOf("=");
  if (at < 1) throw new InvalidArgumentError("Write it as NAME=value.");
  return { ...sofar, [text.slice(0, at)]: text.slice(at + 1) };
};

export const registerDeploy = (program: Command): void => {
  forService(
    program
      .command("deploy")
      .description("publish a version of a function, print its URL")
      .argument("<file or folder>", "a folder with an optional cloister.json, or one file")
      .option("--name <name>", "default: cloister.json's, else the file's or folder's name")
      .addOption(new Option("--runtime <runtime>").choices([...RUNTIMES]))
      .option("--entry <path>", "the file that is loaded, relative to the folder")
      .addOption(new Option("--isolation <path>").choices([...isolationSchema.options]))
      .option("--memory <MiB>", "64 to 4096 (default 256)", wholeNumber)
      .option("--timeout <ms>", "at most 900000 (default 10000)", wholeNumber)
      .option("--env <NAME=value>", "may be given more than once", addVariable)
      .option("--public", "may be called without a key")
      .option("--no-wait", "do not wait for the snapshot that calls start from"),
  ).action(async (path: string, options: DeployOptions) => {
    const deployed = await deploy(path, options);
    if (!options.json)
      process.stdout.write(`${deployed.name}@${deployed.version} ${deployed.url}\n`);
    const snapshot =
      options.wait === false ? undefined : await awaitSnapshot(apiOf(options), deployed);
    if (options.json) printJson({ ...deployed, ...(snapshot ? { snapshot } : {}) });
    // On stderr: what a script reads is the line with the URL.
    else if (snapshot) process.stderr.write(`${snapshotLine(snapshot)}\n`);
  });
};

/** Packs and publishes. Options win over cloister.json. */
export async function deploy(
  path: string,
  options: DeployOptions,
): Promise<z.infer<typeof deployedSchema>> {
  const api = apiOf(options);
  const { config, bundle } = await withProgress("Packing", () => packFunction(path));
  const merged: Record<string, unknown> = { ...config };
  if (options.name !== undefined) merged.name = options.name;
  if (options.runtime !== undefined) merged.runtime = options.runtime;
  if (options.entry !== undefined) merged.entry = options.entry;
  if (options.isolation !== undefined) merged.isolation = options.isolation;
  if (options.memory !== undefined) merged.memoryMb = options.memory;
  if (options.timeout !== undefined) merged.timeoutMs = options.timeout;
  if (options.public) merged.public = true;
  if (options.env) merged.env = { ...(config.env as object | undefined), ...options.env };
  if (bundle.length > LIMITS.bundleBytes) {
    throw new Failure(
      `The bundle is ${(bundle.length / 1024 / 1024).toFixed(1)} MiB, more than the 50 that are allowed.`,
      "Leave out what the function does not need, e.g. with npm prune --omit=dev.",
    );
  }
  const form = new FormData();
  form.set("config", new Blob([JSON.stringify(merged)], { type: "application/json" }));
  form.set("bundle", new Blob([bundle], { type: "application/gzip" }), "bundle.tar.gz");
  return withProgress("Publishing", () =>
    api.json("POST", "/v1/functions", deployedSchema, { body: form }),
  );
}
