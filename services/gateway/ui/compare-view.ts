import { distributionPlot, phasePlots } from "#comparison/plots";
import {
  exitTable,
  markdownOf,
  phaseTable,
  ratioTable,
  remarksOf,
  type ShownTable,
  startTable,
} from "#comparison/tables";
import { type Comparison, MOST_RUNS } from "#contracts/comparison";
import type { CloisterError } from "#errors/catalogue";
import { figure } from "#report/markup";
import type { CellProgress, KeptComparison } from "../compare/kept-comparisons.ts";
import { checkboxes, complaint, type Errors, input, select, textarea } from "./forms.ts";
import { type Html, html, raw } from "./html.ts";
import { page } from "./layout.ts";
import { facts, state, table } from "./tables.ts";
import type { Viewer } from "./viewer.ts";
import { count, duration, moment } from "./words.ts";

/** The fields of the form, as they were sent. */
export interface CompareFields {
  n: string;
  paths: readonly string[];
  data: string;
  method: string;
  path: string;
  body: string;
}

export const NEW_COMPARISON: CompareFields = {
  n: "50",
  paths: ["container", "microvm"],
  data: "",
  method: "GET",
  path: "/",
  body: "",
};

export const COMPARE_LABELS: Readonly<Record<string, string>> = {
  n: "Runs of each start",
  paths: "Paths",
  data: "Event data",
  method: "Method",
  path: "Path",
  body: "Body",
};

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

export const comparisonHref = ({ id }: Pick<KeptComparison, "id">): string =>
  `/ui/comparisons/${id}`;
export const compareHref = (name: string): string => `/ui/functions/${name}/compare`;

const trailOf = (name: string): { title: string; href: string }[] => [
  { title: "Functions", href: "/ui/functions" },
  { title: name, href: `/ui/functions/${name}` },
];

export interface CompareForm {
  name: string;
  version: number;
  fields: CompareFields;
  /** Of this function, the newest first. */
  kept: readonly KeptComparison[];
  /** The tenant's own one that runs: no other is begun before it has ended. */
  running: KeptComparison | undefined;
}

/** What is to be compared, and what was compared before. */
export function comparePage(
  viewer: Viewer,
  { name, version, fields, kept, running }: CompareForm,
  errors: Errors = {},
): Html {
  const label = (field: keyof CompareFields): { name: string; label: string } => ({
    name: field,
    label: COMPARE_LABELS[field] ?? field,
  });
  return page({
    title: `Compare ${name}`,
    viewer,
    place: "functions",
    trail: trailOf(name),
    body: html`<p>Calls version ${version} on both paths, in turns, and puts side by side what that took: cold, out of what was made ready, and warm. Each run is a call of yours: it has a record and counts against quotas.</p>
${complaint(errors, "Nothing was started")}
${running && html`<p class="notice bad">One comparison runs already: <a href="${comparisonHref(running)}">${running.name}, ${running.call}</a>. The next can start when it has ended.</p>`}
${
  viewer.invoke
    ? html`<form class="card narrow" method="post" action="${compareHref(name)}">
${input({ ...label("n"), value: fields.n, inputmode: "numeric", maxlength: 9, hint: `1 to ${count(MOST_RUNS)}, after three rounds that do not count` }, errors)}
${checkboxes({ ...label("paths"), checked: fields.paths, choices: PATHS }, errors)}
${textarea({ ...label("data"), value: fields.data, hint: "As JSON. Leave it empty to call over HTTP." }, errors)}
<fieldset class="field"><legend>Call over HTTP</legend>
${select({ ...label("method"), value: fields.method, choices: METHODS.map((method) => ({ value: method, label: method })) }, errors)}
${input({ ...label("path"), value: fields.path, maxlength: 8192 }, errors)}
${textarea({ ...label("body"), value: fields.body, hint: "Not for GET and HEAD." }, errors)}</fieldset>
<p class="actions"><button>Compare</button></p></form>`
    : html`<p class="notice bad">This key may not call functions: comparing needs one with the scope invoke.</p>`
}
<section aria-labelledby="kept"><h2 id="kept">Compared before</h2>${table({
      caption: "Comparisons of this function that this gateway still has, newest first",
      none: "None. The last five of a tenant are kept for an hour.",
      columns: [
        { title: "Started" },
        { title: "Call" },
        { title: "Version", number: true },
        { title: "State" },
      ],
      rows: kept.map((one) => [
        html`<a href="${comparisonHref(one)}">${moment(new Date(one.startedAtMs))}</a>`,
        html`<code>${one.call}</code>`,
        String(one.version),
        stateOf(one),
      ]),
    })}</section>`,
  });
}

const PATHS = [
  { value: "container", label: "container" },
  { value: "microvm", label: "micro-VM" },
];

function stateOf({ outcome }: KeptComparison): Html {
  if (outcome === undefined) return state("running", "plain");
  if ("problem" in outcome) return state("failed", "bad");
  return outcome.result.stopped === undefined
    ? state("complete", "good")
    : state("stopped early", "warn");
}

/** One comparison: how far it is, or what came of it. */
export function comparisonPage(viewer: Viewer, one: KeptComparison): Html {
  const { outcome } = one;
  return page({
    title: `Comparison of ${one.name}`,
    viewer,
    place: "functions",
    trail: [...trailOf(one.name), { title: "Compare", href: compareHref(one.name) }],
    script: "compare",
    body:
      outcome === undefined
        ? progress(viewer, one)
        : "problem" in outcome
          ? failed(one, outcome.problem)
          : measured(one, outcome.result),
  });
}

/** A row of progress; the script makes the same. */
const cellRow = ({ path, start, runs, failed: failures, lastMs, failure }: CellProgress) => [
  path,
  start,
  count(runs),
  count(failures),
  lastMs === undefined ? "–" : `${figure(lastMs)} ms`,
  failure ?? "",
];

function progress(viewer: Viewer, one: KeptComparison): Html {
  const href = comparisonHref(one);
  const rows = [...one.cells.values()].map(cellRow);
  return html`<p class="notice bad" id="compare-without">This page follows the comparison by a script, which does not run here. <a href="${href}">Load it again</a> to see how far it is.</p>
<div id="compare" data-events="${href}/events">
<p><code>${one.call}</code> of version ${one.version}</p>
<p class="actions"><span id="compare-state" role="status">${state("running", "plain")}</span> <progress id="compare-bar" aria-label="Runs done" value="${one.done}" max="${Math.max(1, one.of)}"></progress> <span id="compare-done" class="nowrap">${one.of === 0 ? "" : `${count(one.done)} of ${count(one.of)}`}</span></p>
${
  viewer.invoke &&
  html`<form method="post" action="${href}/stop"><button class="danger">Stop</button> <span class="hint">What was measured until then is kept.</span></form>`
}
<div class="table" role="region" tabindex="0" aria-label="Runs of each start"><table>
<caption>Runs of each start, those that do not count among them</caption>
<thead><tr><th scope="col">Path</th><th scope="col">Start</th><th scope="col" class="number">Runs</th><th scope="col" class="number">Failed</th><th scope="col" class="number">Last</th><th scope="col">Last failure</th></tr></thead>
<tbody id="compare-cells">${
    rows.length === 0
      ? html`<tr><td class="none" colspan="6">Nothing yet.</td></tr>`
      : rows.map(
          ([first, ...others]) =>
            html`<tr><th scope="row">${first}</th>${others.map((text, at) => html`<td${at >= 1 && at <= 3 && html` class="number"`}>${text}</td>`)}</tr>`,
        )
  }</tbody></table></div></div>`;
}

const failed = (one: KeptComparison, problem: CloisterError): Html =>
  html`<div class="notice bad" role="alert"><p>${problem.message}.</p></div><p>${problem.remedy}</p><p class="faint"><code>${problem.code}</code></p>
<p class="actions"><a class="button" href="${compareHref(one.name)}">Compare again</a></p>`;

/** Drawn and escaped by the library. */
const drawn = (figures: string): Html => html`<div class="drawn">${raw(figures)}</div>`;

const shown = (caption: string, { columns, rows }: ShownTable, none: string): Html =>
  table({
    caption,
    none,
    columns: columns.map(({ title, right }) => ({ title, number: right === true })),
    rows,
  });

const SHOWN_PATHS = { container: "container", microvm: "micro-VM" } as const;

function measured(one: KeptComparison, result: Comparison): Html {
  const href = comparisonHref(one);
  const exits = exitTable(result);
  const away = result.paths.filter(({ available }) => !available);
  const remarks = remarksOf({ ...result, paths: result.paths.filter((path) => path.available) });
  const timed = result.paths.some(({ starts }) =>
    starts.some(({ times_ms }) => times_ms.length > 0),
  );
  return html`${away.map(({ path, reason }) => html`<p class="notice bad">The ${SHOWN_PATHS[path]} path cannot be had: ${reason ?? "nobody said why"}.</p>`)}
${remarks.length > 0 && html`<div class="notice bad"><ul>${remarks.map((text) => html`<li>${text}</li>`)}</ul></div>`}
${facts([
  ["Call", html`<code>${result.call}</code>`],
  ["Version", `${result.version}, ${result.runtime}`],
  ["Runs of each start", count(result.n)],
  ["Calls in all", count(result.invocations)],
  ["Took", duration(result.duration_ms)],
  ["Started", moment(new Date(result.started_at))],
  ["Nodes", result.nodes.length > 0 ? html`<code>${result.nodes.join(", ")}</code>` : "none"],
])}
<p class="actions"><a class="button" href="${compareHref(one.name)}">Compare again</a> <a href="${href}/table.md">Tables as Markdown</a> <a href="${href}/result.json">All as JSON</a></p>
<section aria-labelledby="paths"><h2 id="paths">Both paths</h2>
<p class="faint">From the moment the gateway accepts a call to the last byte of its answer, after ${result.warm_up_rounds} rounds that do not count. Nothing is trimmed; a failure is a run without a time. Intervals hold the true median with 95 %, by bootstrap; under five runs there is none.</p>
${shown("Times, and what a call costs", startTable(result), "Nothing was measured.")}
${shown("How many times as long", ratioTable(result), "There are no two starts to set against each other.")}
<details><summary>The tables as Markdown</summary><p class="actions"><button type="button" class="plain" id="compare-copy" hidden>Copy</button> <span id="compare-copied" role="status"></span></p><pre class="logs" id="compare-markdown" tabindex="0" aria-label="The tables as Markdown">${markdownOf(result)}</pre></details></section>
${
  timed &&
  html`<section aria-labelledby="distributions"><h2 id="distributions">Distributions</h2>${drawn(distributionPlot(result))}
<p class="faint">The table of both paths has the same in numbers.</p></section>
<section aria-labelledby="where"><h2 id="where">Where the time goes</h2>${drawn(phasePlots(result))}
${shown("Phases, medians", phaseTable(result), "No phase was told.")}</section>`
}
<section aria-labelledby="exits"><h2 id="exits">Exits of the virtual machine</h2>${shown("How often a virtual processor came back in a call, by reason (medians)", exits, "No micro-VM has told of exits.")}</section>`;
}
