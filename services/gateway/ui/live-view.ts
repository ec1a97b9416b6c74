import { type Html, html } from "./html.ts";
import { page } from "./layout.ts";
import { plot } from "./live-plot.ts";
import { state } from "./tables.ts";
import type { Viewer } from "./viewer.ts";
import { address } from "./words.ts";

/** A table that the script fills; it is there without one, too, with a row that says so. */
function filled(
  id: string,
  caption: string,
  columns: readonly [title: string, number?: "number"][],
): Html {
  return html`<div class="table" role="region" tabindex="0" aria-label="${caption}"><table>
<caption>${caption}</caption>
<thead><tr>${columns.map(([title, number]) => html`<th scope="col"${number !== undefined && html` class="number"`}>${title}</th>`)}</tr></thead>
<tbody id="${id}"><tr><td class="none" colspan="${columns.length}">Nothing yet.</td></tr></tbody></table></div>`;
}

/** Calls as they end: the script fills what is here by the events of the stream. */
export function livePage(viewer: Viewer, tenant: { id: string; name: string } | undefined): Html {
  const all = tenant === undefined;
  const named = tenant && tenant.id !== viewer.tenant.id ? tenant.name : undefined;
  const calls: [string, "number"?][] = [
    ["Ended"],
    ["How"],
    ...(all ? ([["Tenant"]] as [string][]) : []),
    ["Function"],
    ["Path"],
    ["Start"],
    ["Queue", "number"],
    ["Boot", "number"],
    ["Handler", "number"],
    ["Whole", "number"],
  ];
  return page({
    title: named === undefined ? "Live" : `Live: ${named}`,
    viewer,
    place: "live",
    script: "live",
    body: html`<p class="notice bad" id="live-without">This page follows calls by a script, which does not run here. What has ended is under <a href="${address("/ui/invocations", { tenant: named })}">Invocations</a>${viewer.operator && html`, how nodes stand under <a href="/ui/nodes">Nodes</a>`}.</p>
<div id="live" data-events="${address("/ui/live/events", { tenant: named ?? (all ? undefined : tenant.name) })}"${all && html` data-all`}>
<p class="actions"><span id="live-state" role="status">${state("connecting", "plain")}</span> <button type="button" class="plain" id="live-pause" aria-pressed="false" hidden>Pause</button></p>
<section aria-labelledby="boot"><h2 id="boot">Boot time by path, last minute</h2>
<div class="beside">${plot()}
${filled("live-sums", "By path and start, last minute", [["Path"], ["Start"], ["Calls", "number"], ["Failed", "number"], ["Boot p50", "number"], ["Boot p99", "number"]])}</div></section>
${
  all &&
  html`<section aria-labelledby="pool"><h2 id="pool">Warm pool</h2>${filled("live-pool", "Sandboxes of each node now", [["Node"], ["Busy", "number"], ["Warm", "number"], ["Pooled", "number"], ["Prepared", "number"], ["Starting", "number"], ["Calls waiting", "number"]])}</section>`
}
<section aria-labelledby="exits"><h2 id="exits">Exits of micro-VMs, last minute</h2>${filled("live-exits", "How often virtual processors came back to their monitors", [["Reason"], ["Times", "number"], ["A call", "number"]])}</section>
<section aria-labelledby="calls"><h2 id="calls">Calls</h2>
<p class="faint">The last fifty. When there are many, some of each moment are shown here and in the plot; the sums hold all of them.</p>
${filled("live-calls", "Calls as they end, newest first", calls)}</section></div>`,
  });
}
