import { readEnvironment, required } from "#config/environment";
import { type Database, openDatabase } from "./database.ts";
import { createKey } from "./keys.ts";
import { DEFAULT_TENANT, ensureTenant } from "./tenants.ts";

export interface FirstKeys {
  /** Scopes invoke, deploy, read. */
  key: string;
  /** All scopes. */
  adminKey: string;
}

/** Makes the default tenant if need be, and two new keys of it, whose clear form exists only in the answer. */
export async function bootstrap(db: Database): Promise<FirstKeys> {
  const tenant = await ensureTenant(db, DEFAULT_TENANT, "trusted");
  const user = await createKey(db, tenant.id, "user", ["invoke", "deploy", "read"]);
  const admin = await createKey(db, tenant.id, "admin", ["invoke", "deploy", "read", "admin"]);
  return { key: user.clear, adminKey: admin.clear };
}

if (import.meta.main) {
  try {
    const db = openDatabase(required(readEnvironment(), "CLOISTER_DATABASE_URL"), {
      connections: 1,
    });
    try {
      process.stdout.write(`${JSON.stringify(await bootstrap(db))}\n`);
    } finally {
      await db.close();
    }
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
    process.exitCode = 1;
  }
}
