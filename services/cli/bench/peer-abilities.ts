import { existsSync } from "node:fs";
import { findRunsc, RUNSC_PLATFORM } from "../host/runsc.ts";
import type { Ground } from "./ground.ts";
import { processMode } from "./own-modes.ts";
import { bwrapMode, ociMode, runscMode } from "./peer-modes.ts";
import type { Mode } from "./rounds.ts";

/** How a mode is run here, or one clause that says why it cannot be. */
export type Ability =
  | {
      make(ground: Ground): Mode;
      /** What a reader must know of it here beside its numbers. */
      remark?: string;
    }
  | { lack: string };

/** Able where this file is. */
export const where = (path: string, make: (ground: Ground) => Mode): Ability =>
  existsSync(path) ? { make } : { lack: `${path} is not installed` };

/** Sandboxes of others, and none at all; asked when they are wanted, since some are tried then. */
export const PEER_ABILITIES = {
  process: () => ({ make: processMode }),
  runc: () => where("/usr/sbin/runc", (ground) => ociMode("runc", ground)),
  crun: () => where("/usr/bin/crun", (ground) => ociMode("crun", ground)),
  bwrap: () => where("/usr/bin/bwrap", bwrapMode),
  runsc: runscAbility,
} satisfies Record<string, () => Ability | Promise<Ability>>;
export type Peer = keyof typeof PEER_ABILITIES;

async function runscAbility(): Promise<Ability> {
  const found = await findRunsc();
  if ("lack" in found) return found;
  const { path, version, unlimited } = found;
  const limits =
    unlimited === undefined
      ? "limited as runc is"
      : `without limits of memory and processes, which it cannot set here: ${unlimited}`;
  return {
    make: (ground) => runscMode(found, ground),
    remark: `gVisor ${version} at ${path}, platform ${RUNSC_PLATFORM}, ${limits}`,
  };
}
