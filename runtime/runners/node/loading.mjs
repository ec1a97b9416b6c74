import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { extname, join, resolve, sep } from "node:path";
import { pathToFileURL } from "node:url";
import { LoadFailed, NoHandler } from "./faults.mjs";

const EXTENSIONS = [".mjs", ".js", ".cjs", ".mts", ".ts", ".cts"];
const STEMS = ["index", "main", "handler", "app", "server", "src/index"];
const TYPESCRIPT = new Set([".ts", ".mts", ".cts"]);
const NEEDS_COMPILER = new Set([".tsx", ".jsx"]);

/**
 * Loads a function's module and gives `{kind: "fetch", call, places}` or `{kind: "handler", call, arity, places}`; `places` are what
 * its exports were looked for in. Throws LoadFailed or NoHandler with what to do about it, or whatever the module throws.
 */
export async function loadFunction(root, entry) {
  const path = entry === undefined ? defaultEntry(root) : namedEntry(root, entry);
  const extension = extname(path);
  if (NEEDS_COMPILER.has(extension))
    throw new LoadFailed(`Node cannot load ${extension} files. Compile it and deploy the result.`);
  if (TYPESCRIPT.has(extension) && !process.features.typescript)
    throw new LoadFailed(
      `Node ${process.versions.node} cannot load TypeScript. Use runtime node22, node24 or node26, or deploy compiled JavaScript.`,
    );
  const module = await import(pathToFileURL(path).href);
  const places = [module, module.default, module.default?.default];
  return { ...callable(places), places };
}

function namedEntry(root, entry) {
  const path = resolve(root, entry);
  if (!path.startsWith(`${resolve(root)}${sep}`))
    throw new LoadFailed(`The entry ${entry} is outside the function's folder.`);
  if (isFile(path)) return path;
  throw new LoadFailed(`The entry ${entry} is no file. Name one that is in the bundle.`);
}

function defaultEntry(root) {
  const fromPackage = packageEntry(root);
  if (fromPackage) return fromPackage;
  for (const stem of STEMS)
    for (const extension of EXTENSIONS) {
      const path = join(root, stem + extension);
      if (isFile(path)) return path;
    }
  const files = existsSync(root) ? readdirSync(root) : [];
  const sources = files.filter((name) => EXTENSIONS.includes(extname(name)));
  if (sources.length === 1) return join(root, sources[0]);
  throw new LoadFailed(
    "No entry was found: there is no package.json with main, no index, main, handler or app file, and not exactly one source file. Set entry in cloister.json.",
  );
}

/** What package.json names as `exports` or `main`, if it is a file of the bundle. */
function packageEntry(root) {
  let described;
  try {
    described = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  } catch {
    return undefined;
  }
  const { exports, main } = described ?? {};
  const first = typeof exports === "object" && exports !== null ? exports["."] : exports;
  for (const name of [first, first?.import, first?.default, main]) {
    if (typeof name !== "string") continue;
    const path = resolve(root, name);
    if (path.startsWith(`${resolve(root)}${sep}`) && isFile(path)) return path;
  }
  return undefined;
}

const isFile = (path) => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;

/** Finds what to call among a module's exports; a CommonJS module's exports are its default. */
function callable(places) {
  for (const place of places) {
    const target = place?.default ?? place;
    if (typeof target?.fetch === "function")
      return { kind: "fetch", call: (request, env, ctx) => target.fetch(request, env, ctx) };
  }
  for (const place of places) {
    if (typeof place?.fetch === "function")
      return { kind: "fetch", call: (request, env, ctx) => place.fetch(request, env, ctx) };
    const handler = place?.handler;
    if (typeof handler === "function")
      return {
        kind: "handler",
        arity: handler.length,
        call: (event, context, callback) => handler(event, context, callback),
      };
  }
  for (const place of places.slice(1))
    if (typeof place === "function") return { kind: "fetch", call: place };
  throw new NoHandler(
    "The module exports nothing to call. Export a default object with fetch(request), or a function named handler.",
  );
}
