import type { Command } from "commander";
import { z } from "zod";
import { type Api, segment } from "../http/api.ts";
import { printJson, table } from "../terminal/table.ts";
import { apiOf, forService, type ServiceOptions } from "./service-options.ts";

const functionSchema = z.looseObject({
  name: z.string(),
  version: z.number(),
  url: z.string().optional(),
  runtime: z.string().optional(),
  isolation: z.string().optional(),
  memoryMb: z.number().optional(),
  config: z
    .looseObject({ runtime: z.string(), isolation: z.string(), memoryMb: z.number() })
    .optional(),
});
const listSchema = z.looseObject({
  functions: z.array(functionSchema),
  next: z.string().nullish(),
});
const versionSchema = z.looseObject({
  version: z.number(),
  createdAt: z.union([z.string(), z.number()]).optional(),
  config: z
    .looseObject({ runtime: z.string(), memoryMb: z.number(), timeoutMs: z.number() })
    .optional(),
});
const versionsSchema = z.looseObject({ versions: z.array(versionSchema) });
export const registerLs = (program: Command): void => {
  forService(program.command("ls").description("list functions")).action(
    async (options: ServiceOptions) => {
      const functions = await listFunctions(apiOf(options));
      if (options.json) return printJson({ functions });
      const rows = functions.map((one) => [
        one.name,
        String(one.version),
        one.config?.runtime ?? one.runtime ?? "",
        one.config?.isolation ?? one.isolation ?? "",
        `${one.config?.memoryMb ?? one.memoryMb ?? ""}`,
        one.url ?? "",
      ]);
      if (rows.length === 0)
        process.stdout.write("No functions yet. Deploy one with ./cloister deploy <folder>.\n");
      else {
        const columns = [
          { title: "NAME" },
          { title: "VERSION", right: true },
          { title: "RUNTIME" },
          { title: "ISOLATION" },
          { title: "MIB", right: true },
          { title: "URL" },
        ];
        process.stdout.write(table(columns, rows));
      }
    },
  );
};

async function listFunctions(api: Api): Promise<z.infer<typeof functionSchema>[]> {
  return (await api.json("GET", "/v1/functions", listSchema)).functions;
}

export const registerRm = (program: Command): void => {
  forService(
    program.command("rm").description("delete a function and all its versions").argument("<name>"),
  ).action(async (name: string, options: ServiceOptions) => {
    const { failureOf } = await import("../http/api.ts");
    const response = await apiOf(options).send("DELETE", `/v1/functions/${segment(name)}`);
    if (!response.ok) throw await failureOf(response);
    if (options.json) printJson({ name, deleted: true });
    else process.stdout.write(`deleted ${name}\n`);
  });
};

export const registerVersions = (program: Command): void => {
  forService(
    program.command("versions").description("list a function's versions").argument("<name>"),
  ).action(async (name: string, options: ServiceOptions) => {
    const answer = await apiOf(options).json(
      "GET",
      `/v1/functions/${segment(name)}/versions`,
      versionsSchema,
    );
    if (options.json) return printJson(answer);
    const rows = answer.versions.map((one) => [
      String(one.version),
      one.createdAt === undefined ? "" : new Date(one.createdAt).toISOString(),
      one.config?.runtime ?? "",
      `${one.config?.memoryMb ?? ""}`,
      `${one.config?.timeoutMs ?? ""}`,
    ]);
    const columns = [
      { title: "VERSION", right: true },
      { title: "PUBLISHED" },
      { title: "RUNTIME" },
      { title: "MIB", right: true },
      { title: "TIMEOUT MS", right: true },
    ];
    process.stdout.write(table(columns, rows));
  });
};
