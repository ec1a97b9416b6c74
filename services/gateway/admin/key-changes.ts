import { type ClearKey, type KeySummary, revokeKey, rotateKey } from "#db/keys";
import type { GatewayContext } from "../gateway-context.ts";
import type { AdminChange } from "./tenant-changes.ts";

type Gateway = Pick<GatewayContext, "db" | "changed">;

export type KeyState = "active" | "expired" | "revoked";

export function keyState({ revokedAt, expiresAt }: KeySummary): KeyState {
  if (revokedAt) return "revoked";
  return expiresAt && expiresAt.getTime() <= Date.now() ? "expired" : "active";
}

/** Gives it a new secret, which every gateway takes within a second. Rejects as `rotateKey` does. */
export async function renewKey(
  { db, changed }: Gateway,
  { tenantId, id }: { tenantId: string; id: string },
  graceMs: number,
  change: AdminChange,
): Promise<ClearKey> {
  const rotated = await rotateKey(db, tenantId, id, graceMs, change);
  await changed({ kind: "key", id });
  return rotated;
}

/** Ends its use for good, on every gateway within a second. Rejects as `revokeKey` does. */
export async function endKey(
  { db, changed }: Gateway,
  { tenantId, id }: { tenantId: string; id: string },
  change: AdminChange,
): Promise<void> {
  await revokeKey(db, tenantId, id, change);
  await changed({ kind: "key", id });
}
