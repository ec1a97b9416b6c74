import { assets } from "./assets.ts";
import { type Html, html } from "./html.ts";
import { named } from "./tables.ts";
import type { Viewer } from "./viewer.ts";

/** Places of the dashboard, in the order they are shown. */
export type Place =
  | "overview"
  | "live"
  | "functions"
  | "invocations"
  | "usage"
  | "tenants"
  | "nodes"
  | "queues"
  | "sandboxes"
  | "audit";

interface Entry {
  place: Place;
  title: string;
  href: string;
  seen: (viewer: Viewer) => boolean;
}

const PLACES: readonly Entry[] = [
  { place: "overview", title: "Overview", href: "/ui", seen: () => true },
  { place: "live", title: "Live", href: "/ui/live", seen: ({ read }) => read },
  { place: "functions", title: "Functions", href: "/ui/functions", seen: ({ read }) => read },
  { place: "invocations", title: "Invocations", href: "/ui/invocations", seen: ({ read }) => read },
  { place: "usage", title: "Usage", href: "/ui/usage", seen: ({ read }) => read },
  { place: "tenants", title: "Tenants", href: "/ui/tenants", seen: ({ operator }) => operator },
  { place: "nodes", title: "Nodes", href: "/ui/nodes", seen: ({ operator }) => operator },
  { place: "queues", title: "Queues", href: "/ui/queues", seen: ({ operator }) => operator },
  {
    place: "sandboxes",
    title: "Sandboxes",
    href: "/ui/sandboxes",
    seen: ({ operator }) => operator,
  },
  { place: "audit", title: "Audit log", href: "/ui/audit", seen: ({ admin }) => admin },
];

export interface PageContent {
  title: string;
  /** Who looks; nobody has signed in when absent. */
  viewer?: Viewer | undefined;
  place?: Place;
  /** Pages above this one. */
  trail?: readonly { title: string; href: string }[];
  /** Something that was just done. */
  said?: string | undefined;
  /** The script of its live parts. */
  script?: "live" | "compare";
  body: Html;
}

/** A whole page. */
export function page({ title, viewer, place, trail, said, script, body }: PageContent): Html {
  const links =
    viewer &&
    PLACES.filter(({ seen }) => seen(viewer)).map(
      (entry) =>
        html`<li><a href="${entry.href}"${entry.place === place && html` aria-current="${trail ? "true" : "page"}"`}>${entry.title}</a></li>`,
    );
  return html`<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title} · Cloister</title>
<link rel="icon" href="${assets.icon.href}">
<link rel="stylesheet" href="${assets.style.href}">${script !== undefined && html`<script type="module" src="${assets[script].href}"></script>`}
</head><body>
<a class="skip" href="#main">Skip to the content</a>
<header class="top"><a class="brand" href="/ui">Cloister</a>${
    viewer &&
    html`<nav aria-label="Dashboard"><ul>${links}</ul></nav>
<div class="who"><span>${named(viewer.tenant.name)}${viewer.operator && html` <span class="faint">operator</span>`}</span><form method="post" action="/ui/sign-out"><button class="plain">Sign out</button></form></div>`
  }</header>
<main id="main" tabindex="-1">${
    trail &&
    html`<nav class="trail" aria-label="Where this is"><ol>${trail.map(({ title: above, href }) => html`<li><a href="${href}">${named(above)}</a></li>`)}</ol></nav>`
  }<h1>${named(title)}</h1>
${said !== undefined && html`<p class="notice good" role="status">${said}</p>`}${body}</main>
<footer>Times are UTC. <a href="/docs">API</a></footer>
</body></html>`;
}
