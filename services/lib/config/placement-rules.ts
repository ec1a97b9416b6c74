import { readFileSync } from "node:fs";
import { extendTable, ownTableSchema } from "#contracts/placement-own";
import { PLACEMENT_TABLE, type PlacementTable } from "#contracts/placement-table";

/** A table that takes longer to read than this is none, bytes. */
const MAX_BYTES = 256 * 1024;

/**
 * The rules of this process: the built-in ones, and those of the file CLOISTER_PLACEMENT_RULES on top when it is set. Throws a sentence that names the
 * file and each field that is wrong: a process must not start with other rules than its operator meant.
 */
export function readPlacementTable(file: string | undefined): PlacementTable {
  if (file === undefined) return PLACEMENT_TABLE;
  const wrong = (what: string): Error =>
    new Error(`CLOISTER_PLACEMENT_RULES (${file}) cannot be used: ${what}`);
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw wrong((error as Error).message);
  }
  if (text.length > MAX_BYTES) throw wrong(`it is larger than ${MAX_BYTES / 1024} KiB`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw wrong(`it is no JSON: ${(error as Error).message}`);
  }
  const parsed = ownTableSchema.safeParse(value);
  if (!parsed.success)
    throw wrong(
      parsed.error.issues
        .slice(0, 5)
        .map(({ path, message }) => `${path.join(".") || "it"}: ${message}`)
        .join("; "),
    );
  try {
    return extendTable(PLACEMENT_TABLE, parsed.data);
  } catch (error) {
    throw wrong((error as Error).message);
  }
}
