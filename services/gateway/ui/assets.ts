import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface Asset {
  /** With a digest of what it holds, so that it may be kept for ever. */
  href: string;
  type: string;
  content: Uint8Array<ArrayBuffer>;
}

function load(file: string, type: string): Asset {
  const content = new Uint8Array(readFileSync(join(import.meta.dirname, "assets", file)));
  const digest = createHash("sha256").update(content).digest("hex").slice(0, 16);
  return { href: `/ui/assets/${file.replace(".", `-${digest}.`)}`, type, content };
}

/** The one style sheet, the one script and the sign of the browser's tab. */
export const assets = {
  style: load("style.css", "text/css; charset=utf-8"),
  icon: load("icon.svg", "image/svg+xml"),
  live: load("live.js", "text/javascript; charset=utf-8"),
} as const;

/** The file at this address; undefined for none, and for one of another version. */
export const assetAt = (path: string): Asset | undefined =>
  Object.values(assets).find(({ href }) => href === path);
