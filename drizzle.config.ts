import { defineConfig } from "drizzle-kit";

/** For looking at a database by drizzle-kit; the schema changes by the SQL in migrations/ alone. */
export default defineConfig({
  dialect: "postgresql",
  schema: "./services/lib/db/schema.ts",
  dbCredentials: { url: process.env.CLOISTER_DATABASE_URL ?? "postgresql://localhost/cloister" },
});
