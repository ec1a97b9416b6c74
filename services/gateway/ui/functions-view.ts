import type { Path } from "#contracts/function";
import type { SnapshotState } from "#contracts/snapshot";
import type { FunctionSummary, VersionSummary } from "#db/functions";
import type { RecentInvocation } from "#db/recent-invocations";
import { figure } from "#report/markup";
import type { PlacementReport, ToldByNode } from "../placement/placement-of.ts";
import { compareHref } from "./compare-view.ts";
import { type Html, html } from "./html.ts";
import { invocationTable } from "./invocations-view.ts";
import { page } from "./layout.ts";
import { facts, type Mood, named, state, table } from "./tables.ts";
import type { Viewer } from "./viewer.ts";
import { address, bytes, count, duration, moment } from "./words.ts";

/** Whose functions these are. */
export interface Owner {
  name: string;
  /** The reader's own tenant. */
  own: boolean;
}

export interface FunctionRow {
  one: FunctionSummary;
  snapshot: SnapshotState;
  /** Where a call would run now. */
  placement: PlacementReport;
}

const MOODS: Record<SnapshotState["state"], Mood> = {
  ready: "good",
  making: "plain",
  failed: "bad",
  none: "plain",
};

/** The path a call would take, and how it would start; or why it would be refused. */
const pathOf = ({ path, start, code }: Pick<ToldByNode, "path" | "start" | "code">): Html =>
  path === null ? state(code ?? "refused", "bad") : html`${path}${start && html`, ${start}`}`;

/** Where a call would run, why, and what each node says. */
const placementParts = (placement: PlacementReport, all: boolean): Html => {
  const { findings, nodes } = placement;
  const found = [...findings.needs, ...findings.hints];
  return html`${facts([
    ["A call would run on", pathOf(placement)],
    ["Rules", html`<code>${placement.table}</code>`],
  ])}
<ol>${placement.reasons.map((reason, at) => html`<li>${reason} <code class="faint">${placement.rules[at]}</code></li>`)}</ol>
${placement.remedy !== undefined && html`<p>${placement.remedy}</p>`}
${
  found.length > 0 &&
  table({
    caption: findings.complete
      ? "What its bundle needs"
      : "What its bundle needs, as far as it was looked at",
    none: "",
    columns: ["Need", "Seen", "Where", "Weight"].map((title) => ({ title })),
    rows: found.map((one) => [
      one.need,
      html`<bdi>${one.what}</bdi>`,
      html`<bdi>${one.file ?? "configuration"}${one.line !== undefined && `:${one.line}`}</bdi>`,
      findings.needs.includes(one) ? "decides" : "may never be used",
    ]),
  })
}
${
  all &&
  table({
    caption: "What each node says",
    none: "No node has spoken.",
    columns: [
      ...["Node", "Would run on", "Told"].map((title) => ({ title })),
      ...["Container costs", "Micro-VM costs"].map((title) => ({ title, number: true })),
    ],
    rows: nodes.map((node) => [
      html`<code>${node.id}</code>`,
      pathOf(node),
      node.answered ? "now" : "by its last heartbeat",
      costOf(node, "container"),
      costOf(node, "microvm"),
    ]),
  })
}`;
};

const costOf = ({ paths }: ToldByNode, path: Path): string => {
  const known = paths[path];
  return known ? `${duration(known.acquireMs)}, ${figure(known.memoryMb)} MiB` : "–";
};

const hrefOf = (
  { name, own }: Owner,
  path: string,
  more: Record<string, string | undefined> = {},
): string => address(path, { tenant: own ? undefined : name, ...more });

/** A tenant's functions, a page of them. */
export const functionsPage = (
  viewer: Viewer,
  owner: Owner,
  rows: readonly FunctionRow[],
  next: string | undefined,
): Html =>
  page({
    title: owner.own ? "Functions" : `Functions of ${owner.name}`,
    viewer,
    place: "functions",
    body: html`${table({
      caption: "Functions in order of name",
      none: "Nothing is deployed. Publish a file or a folder with ./cloister deploy.",
      columns: [
        { title: "Function" },
        { title: "Version", number: true },
        ...["Runtime", "Asks for", "Would run on", "Snapshot"].map((title) => ({ title })),
        ...["Memory", "Time", "Bundle"].map((title) => ({ title, number: true })),
        { title: "Published" },
      ],
      rows: rows.map(({ one, snapshot, placement }) => [
        html`<a href="${hrefOf(owner, `/ui/functions/${one.name}`)}">${named(one.name)}</a>`,
        String(one.version),
        one.config.runtime,
        one.config.isolation,
        pathOf(placement),
        state(snapshot.state, MOODS[snapshot.state]),
        `${count(one.config.memoryMb)} MiB`,
        duration(one.config.timeoutMs),
        bytes(one.sizeBytes),
        moment(one.updatedAt),
      ]),
    })}${next !== undefined && html`<p class="pages"><a rel="next" href="${hrefOf(owner, "/ui/functions", { after: next })}">Next page</a></p>`}`,
  });

export interface FunctionParts extends FunctionRow {
  owner: Owner;
  url: string;
  versions: readonly VersionSummary[];
  recent: readonly RecentInvocation[];
}

/** One function: what it is, what it starts from, its versions and its last calls. */
export function functionPage(viewer: Viewer, parts: FunctionParts): Html {
  const { owner, one, snapshot, url, versions, recent } = parts;
  const { config } = one;
  return page({
    title: one.name,
    viewer,
    place: "functions",
    trail: [
      {
        title: owner.own ? "Functions" : `Functions of ${owner.name}`,
        href: hrefOf(owner, "/ui/functions"),
      },
    ],
    body: html`${facts([
      ["Called at", html`<code>${url}</code>`],
      ["Version", String(one.version)],
      ["Runtime", config.runtime],
      ["Isolation asked for", config.isolation],
      ["Reuse", config.reuse],
      ["Memory", `${count(config.memoryMb)} MiB`],
      ["Time of a call", duration(config.timeoutMs)],
      ["Calls at once in a sandbox", count(config.concurrency)],
      ["Called without a key", config.public ? "yes" : "no"],
      ["Environment", Object.keys(config.env).join(", ") || "empty"],
      ["Published", moment(one.updatedAt)],
    ])}
${owner.own && html`<p class="actions"><a class="button" href="${compareHref(one.name)}">Compare its paths</a></p>`}
<section aria-labelledby="placement"><h2 id="placement">Placement</h2>${placementParts(parts.placement, viewer.operator)}</section>
<section aria-labelledby="snapshot"><h2 id="snapshot">Snapshot</h2>${facts([
      ["State", state(snapshot.state, MOODS[snapshot.state])],
      ["Why", snapshot.reason ?? "–"],
      ["Size", snapshot.bytes === undefined ? "–" : bytes(snapshot.bytes)],
      ["Made in", snapshot.ms === undefined ? "–" : duration(snapshot.ms)],
    ])}</section>
<section aria-labelledby="versions"><h2 id="versions">Versions</h2>${table({
      caption: "Versions, newest first",
      none: "",
      columns: [
        { title: "Version" },
        { title: "Published" },
        { title: "Runtime" },
        { title: "Isolation" },
        { title: "Bundle", number: true },
        { title: "Digest" },
      ],
      rows: versions.map((version) => [
        String(version.version),
        moment(version.createdAt),
        version.config.runtime,
        version.config.isolation,
        bytes(version.sizeBytes),
        html`<code>${version.digest.slice(0, 16)}</code>`,
      ]),
    })}</section>
<section aria-labelledby="calls"><h2 id="calls">Last calls</h2>${invocationTable(recent, { tenant: owner.own ? undefined : owner.name })}</section>`,
  });
}
