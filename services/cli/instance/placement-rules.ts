import { closeSync, fchownSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { readPlacementTable } from "#config/placement-rules";
import { account } from "#embedded/unprivileged";
import { Failure, messageOf } from "../failure.ts";
import type { Folders } from "./folders.ts";

const VARIABLE = "CLOISTER_PLACEMENT_RULES";
const copyIn = (folders: Folders): string => join(folders.run, "placement-rules.json");

/**
 * Checks the installation's own placement rules before anything starts, and puts a copy where the services may read it: they cannot read the files of whoever
 * starts them.
 */
export function handOnPlacementRules(folders: Folders, user: string): void {
  const file = process.env[VARIABLE];
  rmSync(copyIn(folders), { force: true });
  if (file === undefined) return;
  try {
    readPlacementTable(file);
    const { uid, gid } = account(user);
    // Never through a link: the folder is the services' own, and this process may write anywhere.
    const copy = openSync(copyIn(folders), "wx", 0o640);
    try {
      writeSync(copy, readFileSync(file));
      fchownSync(copy, uid, gid);
    } finally {
      closeSync(copy);
    }
  } catch (error) {
    throw new Failure(
      `${messageOf(error)}.`,
      "Correct it as docs/placement.md tells, or unset the variable.",
    );
  }
}

/** What the services find the rules by. */
export const placementRulesEnvironment = (folders: Folders): Record<string, string> =>
  process.env[VARIABLE] === undefined ? {} : { [VARIABLE]: copyIn(folders) };
