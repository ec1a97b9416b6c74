import type { Caller } from "../auth/authenticator.ts";

/** Who has signed in, and what the key lets see and do. */
export interface Viewer {
  caller: Caller;
  tenant: { id: string; name: string };
  /** Its own functions, calls and use. */
  read: boolean;
  /** Calls of its own functions, by a comparison. */
  invoke: boolean;
  /** Keys and audit log of its own tenant. */
  admin: boolean;
  /** All tenants and all nodes. */
  operator: boolean;
}

/** What a key's scopes let its holder see. */
export function viewerOf(caller: Caller, tenant: Viewer["tenant"]): Viewer {
  const admin = caller.scopes.includes("admin");
  return {
    caller,
    tenant,
    read: caller.scopes.includes("read"),
    invoke: caller.scopes.includes("invoke"),
    admin,
    operator: admin && caller.operator,
  };
}
