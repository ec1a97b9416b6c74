import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { globSync, readFileSync, realpathSync } from "node:fs";
import { join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { parse } from "yaml";
import { type Instance, startInstance } from "#testkit/instance";
import { call, deploy, recordOf } from "./client.ts";
import { type Exposed, metricsAt, readExposition } from "./exposition.ts";
import { OtlpReceiver } from "./otlp-receiver.ts";
import { selectorsOf } from "./promql.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const FUNCTION = `
export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/throws") throw new Error("on purpose");
    if (pathname === "/waits") await new Promise((resolve) => setTimeout(resolve, 60_000));
    return new Response("ok");
  },
};`;

/** What Prometheus adds when it scrapes. */
const SCRAPED = ["job", "instance"];
/** Values that only trouble brings, of which a sound service shows none. */
const TROUBLE = new Set(["part=housekeeping"]);

interface Panel {
  title: string;
  targets?: { expr: string; legendFormat: string }[];
}
interface Rule {
  alert: string;
  expr: string;
  annotations: Record<string, string>;
  labels: Record<string, string>;
}

/** Dashboards, alert rules and documentation, held against what a gateway and a worker show after calls of all kinds. */
describe("dashboards and alerts", { timeout: 300_000 }, () => {
  let instance: Instance;
  let receiver: OtlpReceiver;
  let gateway: Map<string, Exposed>;
  let worker: Map<string, Exposed>;

  before(async () => {
    receiver = await OtlpReceiver.listen();
    instance = await startInstance({
      env: { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, OTEL_BSP_SCHEDULE_DELAY: "20" },
    });
    await deploy(instance, { name: "c", files: { "index.mjs": FUNCTION }, timeoutMs: 300 });
    await deploy(instance, {
      name: "m",
      isolation: "microvm",
      files: { "index.mjs": FUNCTION },
    });
    const statusOf = async (name: string, path: string): Promise<number> => {
      const response = await call(instance, name, path);
      await response.arrayBuffer();
      // Once its record is there, its usage has been counted.
      await recordOf(instance, response);
      return response.status;
    };
    for (const name of ["c", "m"])
      for (let n = 0; n < 2; n++) assert.equal(await statusOf(name, "/"), 200);
    await receiver.until(() => (receiver.spans.length > 0 ? true : undefined));
    receiver.mode = "fail";
    assert.equal(await statusOf("c", "/throws"), 500);
    assert.equal(await statusOf("c", "/waits"), 504);
    const gone = new AbortController();
    const hungUp = call(instance, "m", "/waits", { signal: gone.signal });
    hungUp.catch(() => {});
    // It is on its way when another one that was sent after it has been answered.
    assert.equal(await statusOf("m", "/"), 200);
    gone.abort();
    await assert.rejects(hungUp);
    // Both processes have had spans that nobody took.
    const id = createHash("sha256").update(realpathSync(instance.dataDirectory)).digest("hex");
    const socket = join("/run/cloister", id.slice(0, 8), "worker.sock");
    for (let seen = 0; ; ) {
      gateway = readExposition(await (await fetch(`${instance.url}/metrics`)).text());
      worker = readExposition(await metricsAt(socket));
      const told = [gateway, worker].every((metrics) =>
        [...metrics].some(
          ([name, { labels }]) =>
            name.endsWith("_spans_total") && labels.get("outcome")?.has("failed"),
        ),
      );
      if (told) break;
      const before = seen;
      seen = await receiver.until(() => (receiver.refused > before ? receiver.refused : undefined));
    }
  });
  after(async () => {
    await instance?.stop();
    await receiver?.close();
  });

  /** A gateway meters only what no worker recorded, of which a sound service has none: its labels are the worker's. */
  const labelsOf = (name: string, { labels }: Exposed): string[] => {
    const twin = name.startsWith("cloister_gateway_usage_")
      ? worker.get(name.replace("gateway", "worker"))
      : undefined;
    return [...(twin?.labels ?? labels).keys()];
  };

  const exposed = (name: string): { metric: Exposed; part: string } | undefined => {
    for (const part of ["", "bucket", "sum", "count"]) {
      const base = part === "" ? name : name.replace(new RegExp(`_${part}$`), "");
      if (part !== "" && base === name) continue;
      const metric = gateway.get(base) ?? worker.get(base);
      if (metric && (part === "" || /^(histogram|summary)$/.test(metric.type)))
        return { metric, part };
    }
    return undefined;
  };

  /** Checks an expression; gives the labels that its result has. */
  function check(expression: string, where: string): Set<string> {
    const results = new Set<string>();
    for (const { metric: name, matchers, range, kept, quantile } of selectorsOf(
      expression.replaceAll("$__rate_interval", "5m"),
    )) {
      if (name === "up") {
        assert.ok(matchers.every(({ label }) => SCRAPED.includes(label)));
        for (const label of SCRAPED) results.add(label);
        continue;
      }
      const found = exposed(name);
      assert.ok(found, `${where}: neither gateway nor worker has ${name}`);
      const { metric, part } = found;
      const counts = metric.type === "counter" || part !== "";
      assert.equal(range, counts, `${where}: ${name}, a ${metric.type}, is used the wrong way`);
      assert.notEqual(metric.type === "histogram" && part === "", true, `${where}: ${name}`);
      const labels = new Set([...labelsOf(name, metric), ...SCRAPED]);
      if (part === "bucket") labels.add("le");
      for (const { label, operator, value } of matchers) {
        assert.ok(labels.has(label), `${where}: ${name} has no label ${label}`);
        if (operator !== "=" || TROUBLE.has(`${label}=${value}`)) continue;
        assert.ok(
          metric.labels.get(label)?.has(value),
          `${where}: ${name} has no ${label}=${value}`,
        );
      }
      for (const label of kept ?? [])
        assert.ok(labels.has(label), `${where}: ${name} has no label ${label} to sum by`);
      if (quantile) assert.ok(kept?.includes("le"), `${where}: a quantile needs le`);
      for (const label of kept ?? labels) if (label !== "le" || !quantile) results.add(label);
    }
    return results;
  }

  const dashboards = globSync("infra/grafana/*.json", { cwd: ROOT });
  test("each panel's expressions parse, and name metrics and labels that exist", () => {
    assert.ok(dashboards.length >= 3);
    const uids = new Set<string>();
    for (const file of dashboards) {
      const dashboard = JSON.parse(readFileSync(join(ROOT, file), "utf8")) as {
        uid: string;
        panels: (Panel & { id: number })[];
      };
      uids.add(dashboard.uid);
      const ids = dashboard.panels.map(({ id }) => id);
      assert.equal(new Set(ids).size, ids.length, `${file}: panels share an id`);
      const panels = dashboard.panels.filter(({ targets }) => targets);
      assert.ok(panels.length > 5, `${file}: ${panels.length} panels`);
      for (const { title, targets = [] } of panels) {
        for (const { expr, legendFormat } of targets) {
          const labels = check(expr, `${file}, ${title}`);
          for (const [, label = ""] of legendFormat.matchAll(/\{\{(\w+)\}\}/g))
            assert.ok(labels.has(label), `${file}, ${title}: the legend names ${label}`);
        }
      }
    }
    assert.equal(uids.size, dashboards.length);
  });

  test("each metric of a call is on a dashboard", () => {
    const shown = dashboards.map((file) => readFileSync(join(ROOT, file), "utf8")).join();
    for (const name of [...gateway.keys(), ...worker.keys()])
      if (/^(faas|cloister)_/.test(name)) assert.ok(shown.includes(name), `no panel shows ${name}`);
  });

  const operations = readFileSync(join(ROOT, "docs/operations.md"), "utf8");
  test("each alert parses, names what exists, says what is wrong, and has a section that says what to do", () => {
    const { groups } = parse(
      readFileSync(join(ROOT, "infra/prometheus/cloister.rules.yml"), "utf8"),
    ) as { groups: { rules: Rule[] }[] };
    const rules = groups.flatMap((group) => group.rules);
    assert.ok(rules.length > 5);
    for (const { alert, expr, annotations, labels } of rules) {
      const results = check(expr, alert);
      assert.match(labels.severity ?? "", /^(critical|warning)$/);
      const summary = annotations.summary ?? "";
      assert.ok(summary.length > 20, alert);
      for (const [, label = ""] of summary.matchAll(/\$labels\.(\w+)/g))
        assert.ok(results.has(label), `${alert}: its summary names ${label}`);
      assert.equal(annotations.runbook_url, `docs/operations.md#${alert.toLowerCase()}`);
      const section = new RegExp(`^### ${alert}\\n\\n(.+?)(?=\\n###? |$(?![\\s\\S]))`, "ms");
      const [, text = ""] = section.exec(operations) ?? [];
      assert.ok(text.length > 80, `docs/operations.md does not say what to do about ${alert}`);
    }
    const sections = [...operations.matchAll(/^### (Cloister\w+)$/gm)].map(([, name]) => name);
    assert.deepEqual(sections.sort(), rules.map(({ alert }) => alert).sort());
  });

  test("docs/operations.md lists all metrics, as they are", () => {
    const own = [...gateway, ...worker].filter(([name]) => /^(faas|cloister)_/.test(name));
    const rows = own.map(([name, metric]) => {
      const { type, help } = metric;
      const names = labelsOf(name, metric)
        .map((label) => `\`${label}\``)
        .join(", ");
      return `| \`${name}\` | ${type} | ${names} | ${help} |`;
    });
    const table = operations.split("\n").filter((line) => /^\| `(faas|cloister)_/.test(line));
    assert.deepEqual(table.sort(), rows.sort());
  });

  test("no metric names a tenant, a function or an invocation", () => {
    for (const [name, { labels }] of [...gateway, ...worker])
      for (const [label, values] of labels) {
        // Node.js tells its own version.
        if (name === "nodejs_version_info") continue;
        assert.doesNotMatch(label, /tenant|function|version|invocation|sandbox|node_id/);
        for (const value of values)
          assert.doesNotMatch(
            value,
            /^(c|m|default|(ten|fn|ver|inv|node)_\w+)$/,
            `${name} ${label}`,
          );
      }
  });
});
