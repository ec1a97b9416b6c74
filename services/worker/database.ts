import { policyOf } from "#contracts/quota";
import { openDatabase } from "#db/database";
import { listRecentlyPublished, readBundle, readVersion } from "#db/functions";
import { keepHouse } from "#db/housekeeping";
import { writeRecords } from "#db/invocations";
import { insertLogs } from "#db/logs";
import { readTenantQuota } from "#db/quotas";
import { readTenant, tenantStates } from "#db/tenants";
import { readMonthTotals } from "#db/usage";
import { CloisterError } from "#errors/catalogue";
import type { WorkerDatabase } from "./worker-service.ts";

/** Record batches and first looks at versions need few connections. */
const CONNECTIONS = 4;
/** Snapshots there can be on one node. */
const MAX_RECENT = 64;

/** Far longer than a call can be under way, ms. */
const DELETED_GRACE_MS = 3_600_000;

/** The worker's view of the database. */
export function openWorkerDatabase(url: string): WorkerDatabase {
  const db = openDatabase(url, { connections: CONNECTIONS });
  return {
    readVersion: (id) => readVersion(db, id),
    readBundle: (digest) => readBundle(db, digest),
    recentlyPublished: (seconds) => listRecentlyPublished(db, seconds, MAX_RECENT),
    async policyOf(tenantId) {
      const [tenant, stored] = await Promise.all([
        readTenant(db, tenantId),
        readTenantQuota(db, tenantId),
      ]);
      if (!tenant?.active || !stored)
        throw new CloisterError("tenant_suspended", "The tenant is suspended, or gone");
      return policyOf(stored.tier, stored.quota);
    },
    writeRecords: (records) => writeRecords(db, records),
    readMonthTotals: (month, tenantId) => readMonthTotals(db, month, tenantId),
    tenantStates: (ids) => tenantStates(db, ids),
    keepHouse: (retentionDays) => keepHouse(db, { days: retentionDays, graceMs: DELETED_GRACE_MS }),
    insertLogs: (entries) => insertLogs(db, entries),
    close: () => db.close(),
  };
}
