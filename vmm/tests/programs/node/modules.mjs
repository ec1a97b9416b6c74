// Modules of both kinds, found and made at run time.
import fs from "node:fs";
import module, { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

fs.mkdirSync("/tmp/node_modules/dep/lib", { recursive: true });
fs.writeFileSync(
  "/tmp/node_modules/dep/package.json",
  JSON.stringify({ name: "dep", exports: { import: "./lib/m.mjs", require: "./lib/c.cjs" } }),
);
fs.writeFileSync(
  "/tmp/node_modules/dep/lib/m.mjs",
  "export default 'module'; export const url = import.meta.url;",
);
fs.writeFileSync(
  "/tmp/node_modules/dep/lib/c.cjs",
  "module.exports = { kind: 'common', file: __filename };",
);
fs.writeFileSync(
  "/tmp/main.mjs",
  "import dep, { url } from 'dep'; import data from './data.json' with { type: 'json' }; export { dep, url, data };",
);
fs.writeFileSync("/tmp/data.json", '{"a": [1, 2]}');
fs.writeFileSync("/tmp/broken.mjs", "export const = 1;");
fs.writeFileSync(
  "/tmp/typed.ts",
  "interface A { n: number }\nexport const twice = (a: A): number => a.n * 2;\n",
);
fs.writeFileSync(
  "/tmp/top.mjs",
  "export const value = await new Promise((r) => setTimeout(r, 5, 'awaited'));",
);
const main = await import("/tmp/main.mjs");
console.log(main.dep, main.url, main.data);
const require = createRequire("/tmp/");
console.log(require("dep"), require.resolve("dep"));
console.log(require("/tmp/data.json").a, require("node:os").EOL.length);
console.log(await import("/tmp/broken.mjs").catch((error) => error.name));
console.log(await import("/tmp/none.mjs").catch((error) => error.code));
console.log(await import("no-such-package").catch((error) => error.code));
console.log(
  (await import("/tmp/top.mjs")).value,
  (await import("data:text/javascript,export default 3")).default,
);
console.log(
  (await import("/tmp/typed.ts")).twice({ n: 4 }),
  module.builtinModules.length > 40,
  module.isBuiltin("fs"),
);
console.log(
  fileURLToPath(import.meta.url),
  path.relative("/tmp/a", "/tmp/b/c"),
  pathToFileURL("/a b").href,
);
console.log(import.meta.dirname, import.meta.resolve("node:fs"));
if (module.registerHooks) {
  module.registerHooks({
    load: (url, context, next) =>
      url.endsWith("data.json")
        ? { format: "module", source: "export default 'hooked'", shortCircuit: true }
        : next(url, context),
  });
  console.log((await import("/tmp/data.json?hooked=data.json")).default);
}
