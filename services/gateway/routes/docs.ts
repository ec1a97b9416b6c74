import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { OpenAPIHono } from "@hono/zod-openapi";
import { CloisterError } from "#errors/catalogue";
import type { GatewayEnv } from "../middleware/caller.ts";

const FOLDER = dirname(createRequire(import.meta.url).resolve("swagger-ui-dist/package.json"));
const ASSETS: Record<string, string> = {
  "swagger-ui.css": "text/css; charset=utf-8",
  "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
};

/** Nothing from elsewhere; swagger-ui sets styles on elements and shows inline images. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Cloister API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
`;
const START = `SwaggerUIBundle({ url: "/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null });\n`;

const headers = (type: string): Record<string, string> => ({
  "content-type": type,
  "content-security-policy": POLICY,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
});

/** The API's description for people, from files of this machine alone. */
export function registerDocs(app: OpenAPIHono<GatewayEnv>): void {
  const loaded = new Map<string, Promise<Uint8Array<ArrayBuffer>>>();
  app.get("/", (c) => c.redirect("/docs"));
  app.get("/docs", (c) => c.body(PAGE, 200, headers("text/html; charset=utf-8")));
  app.get("/docs/start.js", (c) => c.body(START, 200, headers("text/javascript; charset=utf-8")));
  app.get("/docs/:file", async (c) => {
    const file = c.req.param("file");
    const type = Object.hasOwn(ASSETS, file) ? ASSETS[file] : undefined;
    if (type === undefined) throw new CloisterError("not_found");
    let content = loaded.get(file);
    if (!content) {
      content = readFile(join(FOLDER, file)).then((bytes) => new Uint8Array(bytes));
      loaded.set(file, content);
    }
    return c.body(await content, 200, headers(type));
  });
}
