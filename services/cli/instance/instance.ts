import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { z } from "zod";
import { startTimeOf } from "#embedded/process-life";
import { Failure } from "../failure.ts";
import { checkSettings } from "./checked-settings.ts";
import { type Folders, foldersOf } from "./folders.ts";
import { lockInstance } from "./instance-lock.ts";
import { removeLeftovers } from "./leftovers.ts";
import { LogFile } from "./log-file.ts";
import { handOnPlacementRules } from "./placement-rules.ts";
import {
  embeddedDatabaseUrl,
  embeddedRedisUrl,
  gatewayService,
  makeFolders,
  postgresService,
  redisService,
  runScript,
  SERVICE_USER,
  sandboxdService,
  type Wiring,
  workerService,
} from "./services.ts";
import { type InstanceState, writePrivately, writeState } from "./state-file.ts";
import { type ServiceSpec, Supervised } from "./supervised.ts";

export interface InstanceOptions {
  data?: string;
  port: number;
  /** A sentence for whoever started it. */
  tell(sentence: string): void;
  /** Lines of the services, as they come. */
  onLine?(service: string, line: string): void;
}

const keysSchema = z.object({ key: z.string().min(8), adminKey: z.string().min(8) });
type Keys = z.infer<typeof keysSchema>;

/** A migration may rewrite a table; longer than this is a failure, ms. */
const MIGRATE_BOUND_MS = 300_000;
const BOOTSTRAP_BOUND_MS = 30_000;

/** Everything `up` runs, started and drained in order. */
export class Instance {
  readonly folders: Folders;
  readonly url: string;
  /** How long each part of the start took, ms. */
  readonly phases: Record<string, number> = {};
  readonly #options: InstanceOptions;
  readonly #lock: Server;
  readonly #log: LogFile;
  readonly #supervised: Supervised[] = [];
  #ready = false;
  #stopped: Promise<void> | undefined;

  private constructor(options: InstanceOptions, folders: Folders, lock: Server) {
    this.#options = options;
    this.folders = folders;
    this.#lock = lock;
    this.url = `http://127.0.0.1:${options.port}`;
    this.#log = new LogFile(join(folders.logs, "up.log"));
  }

  /**
   * Takes the data folder's lock, removes what a killed run left and makes the folders; nothing runs yet. Throws a Failure when another
   * instance holds the folder or the port is taken.
   */
  static async open(options: InstanceOptions): Promise<Instance> {
    const folders = foldersOf(options.data);
    const lock = await lockInstance(folders.id, folders.data);
    try {
      await checkPort(options.port);
      const found = await removeLeftovers(folders);
      makeFolders(folders);
      checkSettings();
      handOnPlacementRules(folders, SERVICE_USER);
      const instance = new Instance(options, folders, lock);
      if (found.length > 0) instance.#tell(`Removed what a former run left: ${found.join(", ")}.`);
      return instance;
    } catch (error) {
      lock.close();
      throw error;
    }
  }

  /** Resolves with the keys when requests are served. On failure, `stop` must still be called. */
  async start(): Promise<Keys> {
    const began = performance.now();
    const { folders } = this;
    const databaseUrl = process.env.CLOISTER_DATABASE_URL;
    const redisUrl = process.env.CLOISTER_REDIS_URL;
    const wiring: Wiring = {
      folders,
      port: this.#options.port,
      url: this.url,
      linkSecret: randomBytes(32).toString("hex"),
      databaseUrl: databaseUrl ?? embeddedDatabaseUrl(folders),
      redisUrl: redisUrl ?? embeddedRedisUrl(folders),
    };
    const database = async (): Promise<Keys> => {
      if (databaseUrl === undefined) await this.#run(postgresService(folders));
      return this.#prepareDatabase(wiring);
    };
    const queue = redisUrl === undefined ? this.#run(redisService(folders)) : Promise.resolve();
    const [keys] = await all([database(), queue, this.#run(sandboxdService(folders))]);
    await all([this.#run(gatewayService(wiring)), this.#run(workerService(wiring))]);
    writePrivately(folders.credentialsFile, `${JSON.stringify({ url: this.url, ...keys })}\n`);
    this.#ready = true;
    this.#save();
    this.phases.total = performance.now() - began;
    const phases = Object.entries(this.phases).map(([name, ms]) => `${name} ${ms.toFixed(0)} ms`);
    this.#log.write(stamp(`ready; ${phases.join(", ")}`));
    return keys;
  }

  async #prepareDatabase(wiring: Wiring): Promise<Keys> {
    const env = { CLOISTER_DATABASE_URL: wiring.databaseUrl };
    const log = (line: string): void => this.#log.write(line);
    await this.#timed("migrate", () =>
      runScript("services/lib/db/migrate.ts", env, MIGRATE_BOUND_MS, log),
    );
    const { keysFile } = this.folders;
    if (existsSync(keysFile)) {
      const kept = keysSchema.safeParse(parseJson(readFileSync(keysFile, "utf8")));
      if (kept.success) return kept.data;
    }
    const text = await this.#timed("bootstrap", () =>
      runScript("services/lib/db/bootstrap.ts", env, BOOTSTRAP_BOUND_MS, log),
    );
    const keys = keysSchema.parse(parseJson(text));
    writePrivately(keysFile, `${JSON.stringify(keys)}\n`);
    return keys;
  }

  async #run(spec: ServiceSpec): Promise<void> {
    const supervised = new Supervised(spec, join(this.folders.logs, `${spec.name}.log`), {
      tell: (sentence) => this.#tell(sentence),
      line: (name, line) => this.#options.onLine?.(name, line),
      changed: () => this.#save(),
    });
    this.#supervised.push(supervised);
    this.phases[spec.name] = await supervised.start();
  }

  async #timed<T>(name: string, work: () => Promise<T>): Promise<T> {
    const began = performance.now();
    const result = await work();
    this.phases[name] = performance.now() - began;
    return result;
  }

  #save(): void {
    if (this.#stopped) return;
    const state: InstanceState = {
      schema: 1,
      supervisor: { pid: process.pid, startTime: startTimeOf(process.pid) ?? "" },
      id: this.folders.id,
      run: this.folders.run,
      url: this.url,
      port: this.#options.port,
      ready: this.#ready,
      services: {},
    };
    for (const { name, process: known } of this.#supervised) {
      if (known) state.services[name] = known;
    }
    writeState(this.folders.stateFile, state);
  }

  #tell(sentence: string): void {
    this.#log.write(stamp(sentence));
    this.#options.tell(sentence);
  }

  /** Drains and stops everything, front to back, then removes what belonged to the run. Safe to call again. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    rmSync(this.folders.credentialsFile, { force: true });
    const byName = new Map(this.#supervised.map((service) => [service.name, service]));
    for (const name of ["gateway", "worker", "sandboxd", "redis", "postgres"]) {
      const began = performance.now();
      const service = byName.get(name);
      if (!service) continue;
      await service.stop();
      this.#log.write(stamp(`${name} stopped in ${(performance.now() - began).toFixed(0)} ms`));
    }
    rmSync(this.folders.run, { recursive: true, force: true });
    rmSync(this.folders.stateFile, { force: true });
    this.#log.write(stamp("stopped"));
    this.#lock.close();
  }

  /** Ends every process at once. `stop` is called as well, and then has little to wait for. */
  kill(): void {
    for (const service of this.#supervised) service.kill();
  }
}

const stamp = (text: string): string => `${new Date().toISOString()} ${text}`;

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Like Promise.all, but waits for the others when one fails, so that no start goes on behind a stop. */
async function all<T extends readonly unknown[]>(
  work: readonly [...{ [K in keyof T]: Promise<T[K]> }],
): Promise<T> {
  const settled = await Promise.allSettled(work);
  for (const one of settled) if (one.status === "rejected") throw one.reason;
  return settled.map((one) => (one as PromiseFulfilledResult<unknown>).value) as unknown as T;
}

async function checkPort(port: number): Promise<void> {
  const server = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(port, "127.0.0.1", resolve);
  try {
    await promise;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EADDRINUSE" && code !== "EACCES") throw error;
    throw new Failure(
      `Port ${port} on 127.0.0.1 is ${code === "EACCES" ? "not allowed" : "taken"}.`,
      "Choose another with --port, e.g. --port 8081.",
    );
  }
  const closed = Promise.withResolvers<void>();
  server.close(() => closed.resolve());
  await closed.promise;
}

/** A port nobody listens on at this moment. */
export async function freePort(): Promise<number> {
  const server = createServer();
  const listening = Promise.withResolvers<void>();
  server.once("error", listening.reject);
  server.listen(0, "127.0.0.1", listening.resolve);
  await listening.promise;
  const address = server.address();
  const closed = Promise.withResolvers<void>();
  server.close(() => closed.resolve());
  await closed.promise;
  if (address === null || typeof address === "string") throw new Error("no port was given");
  return address.port;
}
