import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface Asset {
  /** With a digest of what it holds, so that it may be kept for ever. */
  href: string;
  type: string;
  content: Uint8Array<ArrayBuffer>;
}

/** Files as one, in this order. */
function load(name: string, files: readonly string[], type: string): Asset {
  const folder = join(import.meta.dirname, "assets");
  const content = new Uint8Array(
    Buffer.concat(files.map((file) => readFileSync(join(folder, file)))),
  );
  const digest = createHash("sha256").update(content).digest("hex").slice(0, 16);
  return { href: `/ui/assets/${name.replace(".", `-${digest}.`)}`, type, content };
}

/** The one style sheet, the one script and the sign of the browser's tab. */
export const assets = {
  style: load("style.css", ["page.css", "parts.css", "plots.css"], "text/css; charset=utf-8"),
  icon: load("icon.svg", ["icon.svg"], "image/svg+xml"),
  live: load("live.js", ["live.js"], "text/javascript; charset=utf-8"),
} as const;

/** The file at this address; undefined for none, and for one of another version. */
export const assetAt = (path: string): Asset | undefined =>
  Object.values(assets).find(({ href }) => href === path);
