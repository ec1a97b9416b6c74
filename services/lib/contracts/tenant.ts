import { z } from "zod";

export const TIERS = ["trusted", "standard", "untrusted"] as const;
export const tierSchema = z.enum(TIERS);

/** What a key may be used for. `admin` governs the key's own tenant, or all of them when that is the operator's. */
export const SCOPES = ["invoke", "deploy", "read", "admin"] as const;
export const scopeSchema = z.enum(SCOPES);

export const isTenantId = (text: string): boolean => /^ten_[0-9a-v]{26}$/.test(text);
export const isKeyId = (text: string): boolean => /^key_[0-9a-v]{26}$/.test(text);

/** It stands in addresses and on command lines, where an id may stand too. */
export const tenantNameSchema = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/,
    "1 to 63 letters, digits, dots, - and _, beginning with a letter or a digit",
  )
  .refine((name) => !isTenantId(name), "a name must not look like an id");
