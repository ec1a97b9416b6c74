import type { Database } from "#db/database";
import { DEFAULT_TENANT, readTenant, tenantByName } from "#db/tenants";
import { hasUsage } from "#db/usage";
import { CloisterError } from "#errors/catalogue";
import type { Caller } from "../auth/authenticator.ts";

const ID = /^ten_[0-9a-v]{26}$/;
/** What can be neither id nor name never reaches the database, which cannot hold every string. */
const NAME = /^[\w.-]{1,64}$/;

/** Whether the caller's key is of the operator's tenant, which governs all. */
export async function isOperator(db: Database, caller: Caller): Promise<boolean> {
  return (await tenantByName(db, DEFAULT_TENANT))?.id === caller.tenantId;
}

/**
 * The id of the tenant that an address names by its id or its name; by its id also one that was removed, whose usage stays. Admins of a tenant reach
 * their own; for them, others do not exist.
 */
export async function whoseUsage(db: Database, caller: Caller, text: string): Promise<string> {
  const id = ID.test(text)
    ? text
    : NAME.test(text)
      ? (await tenantByName(db, text))?.id
      : undefined;
  const known =
    id !== undefined &&
    (id === caller.tenantId || ((await isOperator(db, caller)) && (await isKnown(db, id))));
  if (known) return id;
  throw new CloisterError("not_found", `There is no tenant ${text.slice(0, 100)}`);
}

const isKnown = async (db: Database, id: string): Promise<boolean> =>
  (await readTenant(db, id)) !== undefined || hasUsage(db, id);
