import { z } from "zod";
import type { Need } from "./need-kinds.ts";

/** Runtimes an image exists for. The order is the one shown to people. */
export const RUNTIMES = ["node20", "node22", "node24", "node26", "python3", "binary"] as const;
export const runtimeSchema = z.enum(RUNTIMES);
export type Runtime = z.infer<typeof runtimeSchema>;

export const isolationSchema = z.enum(["auto", "container", "microvm"]);
export type Isolation = z.infer<typeof isolationSchema>;

/** The two execution paths; `auto` resolves to one of them. */
export const pathSchema = z.enum(["container", "microvm"]);
export type Path = z.infer<typeof pathSchema>;

export const startKindSchema = z.enum(["cold", "prepared", "restored", "reset", "warm"]);
export type StartKind = z.infer<typeof startKindSchema>;

/** DNS label, so that a name can stand in a URL path, a file name and a host name. */
export const functionNameSchema = z
  .string()
  .regex(
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
    "1 to 63 characters of a-z, 0-9 and -, not starting or ending with -",
  );

/** Largest limits a caller can meet, in bytes (docs: SPECIFICATION.md, "Limits"). */
export const LIMITS = {
  syncBodyBytes: 6 * 1024 * 1024,
  asyncEventBytes: 1024 * 1024,
  bundleBytes: 50 * 1024 * 1024,
  /** What a bundle may hold once unpacked: a bomb ends here. */
  bundleUnpackedBytes: 500 * 1024 * 1024,
  bundleEntries: 50_000,
  envBytes: 32 * 1024,
  /** Bodies up to this size travel in the queue's job; larger ones over the reply link. */
  inlineBodyBytes: 64 * 1024,
} as const;

const envSchema = z
  .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/), z.string().max(8192))
  .refine((env) => JSON.stringify(env).length <= LIMITS.envBytes, "env is larger than 32 KiB")
  .refine(
    (env) => !Object.keys(env).some((key) => /^(CLOISTER_|LD_|NODE_OPTIONS$)/.test(key)),
    "names starting with CLOISTER_ or LD_, and NODE_OPTIONS, are reserved",
  );

/** `none`, or hosts and CIDRs the function may reach. */
const egressSchema = z.union([z.literal("none"), z.array(z.string().min(1).max(255)).max(64)]);

/**
 * cloister.json, and the `config` of a deploy. Unknown fields are refused, so that a typing error in a limit
 * never means "no limit".
 */
export const functionConfigSchema = z.strictObject({
  name: functionNameSchema,
  runtime: runtimeSchema.default("node24"),
  /** Path inside the bundle; when absent the runner looks for the usual names. */
  entry: z
    .string()
    .min(1)
    .max(255)
    .refine(
      (path) => !path.startsWith("/") && !path.split("/").includes("..") && !path.includes("\0"),
      "entry must be a relative path inside the bundle",
    )
    .optional(),
  isolation: isolationSchema.default("auto"),
  memoryMb: z.number().int().min(64).max(4096).default(256),
  timeoutMs: z.number().int().min(1).max(900_000).default(10_000),
  concurrency: z.number().int().min(1).max(100).default(1),
  reuse: z.enum(["warm", "fresh"]).default("warm"),
  env: envSchema.default({}),
  egress: egressSchema.default("none"),
  public: z.boolean().default(false),
});
export type FunctionConfig = z.infer<typeof functionConfigSchema>;

/** A published version: immutable, so every process may cache it for ever by `versionId`. */
export interface VersionSpec {
  versionId: string;
  functionId: string;
  tenantId: string;
  name: string;
  version: number;
  /** SHA-256 of the bundle (tar.gz as stored), lower-case hex; also its folder's name in the bundle cache. */
  bundleDigest: string;
  config: FunctionConfig;
  /** What its bundle and configuration need for certain; absent when nobody looked. */
  needs?: readonly Need[];
}
