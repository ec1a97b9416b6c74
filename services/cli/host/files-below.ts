import { readdirSync } from "node:fs";
import { join } from "node:path";

/** Paths of all plain files below a folder. Links are not followed: Node's own recursion follows those to folders, out of the tree. */
export function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return filesBelow(path);
    return entry.isFile() ? [path] : [];
  });
}
