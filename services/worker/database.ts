import { openDatabase } from "#db/database";
import { listRecentlyPublished, readBundle, readVersion } from "#db/functions";
import { writeRecords } from "#db/invocations";
import { insertLogs } from "#db/logs";
import { readTenant } from "#db/tenants";
import { CloisterError } from "#errors/catalogue";
import type { WorkerDatabase } from "./worker-service.ts";

/** Record batches and first looks at versions need few connections. */
const CONNECTIONS = 4;
/** Snapshots there can be on one node. */
const MAX_RECENT = 64;

/** The worker's view of the database. */
export function openWorkerDatabase(url: string): WorkerDatabase {
  const db = openDatabase(url, { connections: CONNECTIONS });
  return {
    readVersion: (id) => readVersion(db, id),
    readBundle: (digest) => readBundle(db, digest),
    recentlyPublished: (seconds) => listRecentlyPublished(db, seconds, MAX_RECENT),
    async tierOf(tenantId) {
      const tenant = await readTenant(db, tenantId);
      if (!tenant?.active) throw new CloisterError("forbidden", "The tenant is not active");
      return tenant.tier;
    },
    writeRecords: (records) => writeRecords(db, records),
    insertLogs: (entries) => insertLogs(db, entries),
    close: () => db.close(),
  };
}
