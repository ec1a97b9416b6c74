import { readEnvironment, required } from "#config/environment";
import { runMigrations } from "./migrations.ts";

export { runMigrations } from "./migrations.ts";

if (import.meta.main) {
  try {
    const url = required(readEnvironment(), "CLOISTER_DATABASE_URL");
    process.stdout.write(`${JSON.stringify({ applied: await runMigrations(url) })}\n`);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
    process.exitCode = 1;
  }
}
