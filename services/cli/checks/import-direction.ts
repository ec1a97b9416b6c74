import {
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { type Outcome, runCheck } from "./run-check.ts";

/**
 * Runs dependency-cruiser with .dependency-cruiser.cjs. It reads TypeScript through the compiler's JavaScript API, which TypeScript 7 does not
 * have, so it gets a copy of the sources without types. Imports of types stay in: they too must point the right way.
 */
export async function checkImports(): Promise<Outcome> {
  const copy = mkdtempSync(join(tmpdir(), "cloister-imports-"));
  try {
    const folders = ["services", "runtime", "infra", "loadtests", "migrations"];
    for (const path of globSync(`{${folders.join(",")}}/**/*.ts`, { cwd: PROJECT_ROOT })) {
      if (path.includes("node_modules/")) continue;
      const target = join(copy, path.replace(/\.ts$/, ".mjs"));
      mkdirSync(dirname(target), { recursive: true });
      writeFileSync(target, withoutTypes(readFileSync(join(PROJECT_ROOT, path), "utf8")));
    }
    const packageJson = readFileSync(join(PROJECT_ROOT, "package.json"), "utf8");
    writeFileSync(join(copy, "package.json"), packageJson.replaceAll('.ts"', '.mjs"'));
    symlinkSync(join(PROJECT_ROOT, "node_modules"), join(copy, "node_modules"));
    const depcruise = join(
      PROJECT_ROOT,
      "node_modules/dependency-cruiser/bin/dependency-cruise.mjs",
    );
    const config = join(PROJECT_ROOT, ".dependency-cruiser.cjs");
    const existing = globSync(`{${folders.join(",")}}`, { cwd: copy });
    return await runCheck(
      process.execPath,
      [depcruise, "--config", config, "--output-type", "err-long", ...existing],
      {
        cwd: copy,
      },
    );
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

function withoutTypes(source: string): string {
  const valued = source
    .replaceAll(/^import type /gm, "import ")
    .replaceAll(/^export type (?=[{*])/gm, "export ")
    .replaceAll(/(["'])(\.{1,2}\/[^"'\n]*)\.ts\1/g, "$1$2.mjs$1");
  return stripTypeScriptTypes(valued);
}
