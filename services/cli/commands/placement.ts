import { type Command, Option } from "commander";
import { z } from "zod";
import { pathSchema } from "#contracts/function";
import { type Finding, findingSchema } from "#contracts/needs";
import { segment } from "../http/api.ts";
import { printJson, table } from "../terminal/table.ts";
import { apiOf, forService, type ServiceOptions } from "./service-options.ts";

const decisionSchema = z.looseObject({
  path: z.string().nullish(),
  start: z.string().optional(),
  code: z.string().optional(),
  detail: z.string().optional(),
  remedy: z.string().optional(),
  reasons: z.array(z.string()),
  rules: z.array(z.string()),
  table: z.string(),
});
type Decision = z.infer<typeof decisionSchema>;

const stateSchema = z.looseObject({
  start: z.string(),
  ready: z.boolean(),
  next: z.string(),
  acquireMs: z.number(),
  memoryMb: z.number(),
  observed: z.number(),
});
const nodeSchema = decisionSchema.extend({
  id: z.string(),
  answered: z.boolean(),
  paths: z.looseObject({ container: stateSchema.optional(), microvm: stateSchema.optional() }),
});
type Node = z.infer<typeof nodeSchema>;

const reportSchema = decisionSchema.extend({
  findings: z.looseObject({
    needs: z.array(findingSchema),
    hints: z.array(findingSchema),
    complete: z.boolean(),
    looked: z.boolean(),
  }),
  nodes: z.array(nodeSchema),
});
type Report = z.infer<typeof reportSchema>;

interface PlacementOptions extends ServiceOptions {
  isolation?: string;
}

export const registerPlacement = (program: Command): void => {
  forService(
    program
      .command("placement")
      .description("which path a call would take and why, without running it")
      .argument("<name>", "a function, or one version of it: name@2")
      .addOption(
        new Option("--isolation <path>", "as a caller asks who names a path").choices(
          pathSchema.options,
        ),
      ),
  ).action(async (name: string, options: PlacementOptions) => {
    const query = options.isolation === undefined ? "" : `?isolation=${options.isolation}`;
    const report = await apiOf(options).json(
      "GET",
      `/v1/functions/${segment(name)}/placement${query}`,
      reportSchema,
    );
    if (options.json) printJson(report);
    else process.stdout.write(placementText(report));
  });
};

/** What people read. */
export const placementText = (report: Report): string =>
  [decisionText(report), findingsText(report), nodesText(report.nodes)]
    .filter((part) => part !== "")
    .join("\n");

function decisionText(report: Decision): string {
  const { path, start, code, detail, remedy } = report;
  const head = path
    ? [start === undefined ? path : `${path}, ${start}`]
    : [`refused: ${code}`, `  ${detail}.`, ...(remedy === undefined ? [] : [`  ${remedy}`]), ""];
  return `${head.join("\n")}\n${reasonsText(report)}`;
}

const reasonsText = ({ reasons, rules, table: version }: Decision): string =>
  table(
    [{ title: "WHY" }, { title: `RULE (TABLE ${version})` }],
    reasons.map((reason, at) => [reason, rules[at] ?? ""]),
  );

function findingsText({ findings }: Report): string {
  const { needs, hints, complete, looked } = findings;
  if (!looked) return "Its bundle was published before bundles were looked at: deploy it again.\n";
  const rows = [
    ...needs.map((one) => ["needs", ...cellsOf(one)]),
    ...hints.map((one) => ["may need", ...cellsOf(one)]),
  ];
  const note = complete ? "" : "Not everything in its bundle was looked at, there is too much.\n";
  if (rows.length === 0) return note;
  const titles = ["FOUND", "NEED", "WHAT", "WHERE"];
  return `${table(
    titles.map((title) => ({ title })),
    rows,
  )}${note}`;
}

const cellsOf = ({ need, what, file, line }: Finding): string[] => [
  need,
  printable(what),
  file === undefined
    ? "cloister.json"
    : `${printable(file)}${line === undefined ? "" : `:${line}`}`,
];

/** Names in a bundle may hold what a terminal would obey. */
const printable = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for.
  text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (one) => JSON.stringify(one).slice(1, -1));

function nodesText(nodes: readonly Node[]): string {
  if (nodes.length === 0) return "No worker has reported itself.\n";
  const rows = nodes.flatMap((node) => {
    const says = node.path ?? node.code ?? "refused";
    const states = pathSchema.options.flatMap((path) => {
      const state = node.paths[path];
      return state ? [[path, ...stateCells(state)]] : [];
    });
    const first = [node.id, node.answered ? says : `${says} (by its last heartbeat)`];
    const cells = states.length > 0 ? states : [["-", "-", "-", "-", "-", "-"]];
    return cells.map((state, at) => [...(at === 0 ? first : ["", ""]), ...state]);
  });
  const right = (title: string) => ({ title, right: true });
  return table(
    [
      ...[
        { title: "NODE" },
        { title: "SAYS" },
        { title: "PATH" },
        { title: "A CALL NOW" },
        { title: "ELSE" },
      ],
      ...[right("EXPECTED MS"), right("MIB"), right("SEEN")],
    ],
    rows,
  );
}

const stateCells = (state: z.infer<typeof stateSchema>): string[] => [
  state.ready ? `${state.start}, at once` : state.start,
  state.next,
  state.acquireMs.toFixed(1),
  state.memoryMb.toFixed(0),
  state.observed.toFixed(1),
];
