import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { isLoopback } from "#loadtests/lib/settings";
import { EXIT, Failure, messageOf } from "../failure.ts";
import { type Credentials, readCredentials } from "../http/api.ts";
import { dataFolder } from "../instance/folders.ts";
import { freePort, Instance } from "../instance/instance.ts";

/** A service, with the key of who may make tenants there where it is known. */
export type Governed = Credentials & { adminKey: string | undefined };

/** The service that is loaded. */
export interface LoadedService extends Governed {
  /** Stops it when this run has started it. */
  stop(): Promise<void>;
}

const adminSchema = z.object({ adminKey: z.string().min(1) });

/** The service that runs, or one of the run's own when none does. */
export async function findOrStartService(
  dataDir: string | undefined,
  signal: AbortSignal,
  tell: (sentence: string) => void,
): Promise<LoadedService> {
  const file = join(dataFolder(dataDir), "credentials.json");
  if (process.env.CLOISTER_URL !== undefined || existsSync(file)) {
    const credentials = readCredentials(dataDir);
    requireLoopback(credentials.url);
    const adminKey = process.env.CLOISTER_ADMIN_KEY ?? adminKeyIn(file);
    return { ...credentials, adminKey, stop: async () => {} };
  }
  const data = mkdtempSync(join(tmpdir(), "cloister-load-"));
  const removeData = (): void => rmSync(data, { recursive: true, force: true });
  const port = await freePort();
  tell(`No service runs: starting one on 127.0.0.1:${port} for this run …`);
  let instance: Instance | undefined;
  const kill = (): void => instance?.kill();
  signal.addEventListener("abort", kill, { once: true });
  try {
    instance = await Instance.open({ data, port, tell });
    if (signal.aborted) throw new Error("interrupted");
    await instance.start();
    const credentials = readCredentialsIn(data);
    const started = instance;
    return {
      ...credentials,
      adminKey: adminKeyIn(join(data, "credentials.json")),
      async stop() {
        tell("Stopping the service …");
        await started.stop();
        removeData();
      },
    };
  } catch (error) {
    await instance?.stop();
    removeData();
    if (signal.aborted)
      throw new Failure("The load test was interrupted.", "Run it again.", EXIT.interrupted);
    throw error instanceof Failure
      ? error
      : new Failure(`The service did not start: ${messageOf(error)}`, "Run ./cloister doctor.");
  } finally {
    signal.removeEventListener("abort", kill);
  }
}

/** Of this folder alone: CLOISTER_KEY belongs to another service. */
function readCredentialsIn(data: string): Credentials {
  const text = readFileSync(join(data, "credentials.json"), "utf8");
  return z.object({ url: z.url(), key: z.string() }).parse(JSON.parse(text));
}

function adminKeyIn(file: string): string | undefined {
  try {
    return adminSchema.parse(JSON.parse(readFileSync(file, "utf8"))).adminKey;
  } catch {
    return undefined;
  }
}

/** Load goes to this machine only: it would be an attack on any other. */
export function requireLoopback(url: string): void {
  if (isLoopback(url.replace(/\/+$/, ""))) return;
  throw new Failure(
    `${url} is not an address of this machine, and load is sent to no other.`,
    "Run ./cloister load where the service runs, with http://127.0.0.1:<port>.",
    EXIT.usage,
  );
}
