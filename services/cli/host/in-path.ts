import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** The first program of this name in the folders of PATH that may be run; undefined when there is none. */
export function inPath(name: string, path = process.env.PATH ?? ""): string | undefined {
  return path
    .split(delimiter)
    .filter((folder) => folder !== "")
    .map((folder) => join(folder, name))
    .find(isRunnable);
}

/** Also of a folder, which access(2) cannot tell from a program: running it says what is wrong. */
export function isRunnable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
