import { z } from "zod";
import { pathSchema } from "#contracts/function";

/**
 * Every environment variable a Cloister process reads, parsed once. `cloister up` sets those that are needed; on several
 * machines an operator does.
 */
const address = z
  .string()
  .regex(/^(unix:\/.{1,100}|tcp:[^:]+:\d{1,5})$/, "unix:/path or tcp:host:port");

const environmentSchema = z.object({
  /** postgresql://user@host/db, or ?host=/socket/folder. */
  CLOISTER_DATABASE_URL: z.string().min(1).optional(),
  /** redis://host:port, or unix:/path/redis.sock. */
  CLOISTER_REDIS_URL: z.string().min(1).optional(),
  /** host:port the gateway serves HTTP on. */
  CLOISTER_LISTEN: z.string().default("127.0.0.1:8080"),
  /** What users type; used in URLs that the API answers with. */
  CLOISTER_PUBLIC_URL: z.url().optional(),
  /** Where this gateway takes answers from workers. */
  CLOISTER_REPLY_LISTEN: address.optional(),
  /** Shared secret of gateways and workers; a reply link without it is refused. */
  CLOISTER_LINK_SECRET: z.string().min(16).optional(),
  /** sandboxd's Unix socket. */
  CLOISTER_SANDBOXD_SOCKET: z.string().optional(),
  /** Folder of unpacked bundles, one per digest; the worker writes it, sandboxd mounts from it. */
  CLOISTER_BUNDLES_DIR: z.string().optional(),
  /** Folder where records wait for the database, so that they outlive a killed process; absent means in memory alone. */
  CLOISTER_RECORDS_DIR: z.string().optional(),
  /** Memory that all sandboxes of this node may have together, MiB. Default: three quarters of the machine's. */
  CLOISTER_NODE_MEMORY_MB: z.coerce.number().int().min(64).optional(),
  /** Jobs one worker serves at once. */
  CLOISTER_WORKER_CONCURRENCY: z.coerce.number().int().min(1).max(1000).default(100),
  /** Paths this node offers, separated by commas, of those its sandboxd can make; default: all of them. */
  CLOISTER_PATHS: z
    .string()
    .transform((text) => text.split(",").map((path) => path.trim()))
    .pipe(z.array(pathSchema).min(1))
    .optional(),
  /** A warm sandbox nobody asked for this long is ended, ms. */
  CLOISTER_IDLE_MS: z.coerce.number().int().min(100).default(300_000),
  /** Prepared cells kept ready, e.g. `node24=2,python3=1`. */
  CLOISTER_PREPARED: z.string().default("node24=2"),
  /** Clones brought back from its snapshot that wait for the calls of each function in demand, at most; 0: none. */
  CLOISTER_CLONES_PER_FUNCTION: z.coerce.number().int().min(0).max(16).default(2),
  /** Turns of a runner's own code before a function is frozen; 0 freezes it as it was loaded. */
  CLOISTER_SNAPSHOT_WARM_TURNS: z.coerce.number().int().min(0).max(10_000).default(1000),
  /** Calls that wait in a gateway for a place at a node, of all tenants, and of one. Beyond it they are refused at once. */
  CLOISTER_BACKLOG: z.coerce.number().int().min(1).max(1_000_000).default(10_000),
  CLOISTER_BACKLOG_PER_TENANT: z.coerce.number().int().min(1).max(1_000_000).default(2000),
  /** Longest a request waits for a worker or for room, ms. */
  CLOISTER_QUEUE_WAIT_MS: z.coerce.number().int().min(100).default(30_000),
  /** Where the worker serves its own /metrics and /healthz: a port on 127.0.0.1 or a socket's path; absent means nowhere. */
  CLOISTER_WORKER_METRICS: z.string().optional(),
  /** File with placement rules of this node's or installation's own (docs/placement.md). */
  CLOISTER_PLACEMENT_RULES: z.string().min(1).optional(),
  /** Days that records and logs are kept; usage stays. */
  CLOISTER_RETENTION_DAYS: z.coerce.number().int().min(1).max(3650).default(40),
  CLOISTER_LOG_LEVEL: z.enum(["trace", "debug", "info", "warn", "error", "silent"]).default("info"),
});

export type Environment = z.infer<typeof environmentSchema>;

/** Parses `env`; throws one sentence that names each bad variable. */
export function readEnvironment(
  env: Record<string, string | undefined> = process.env,
): Environment {
  const parsed = environmentSchema.safeParse(env);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw new Error(`The environment is not valid: ${issues.join("; ")}`);
}

/** The value, or a sentence that tells which variable is missing. */
export function required<K extends keyof Environment>(
  environment: Environment,
  name: K,
): NonNullable<Environment[K]> {
  const value = environment[name];
  if (value === undefined || value === null) {
    throw new Error(`${name} is not set; ./cloister up sets it, other set-ups must.`);
  }
  return value as NonNullable<Environment[K]>;
}
