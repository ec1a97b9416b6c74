import assert from "node:assert/strict";
import { request } from "node:http";

/** One metric as /metrics shows it. */
export interface Exposed {
  type: string;
  help: string;
  /** Label to the values it was seen with; `le` is left out. */
  labels: Map<string, Set<string>>;
}

const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)/gy;

/** Reads Prometheus's text format as far as prom-client writes it; what it does not understand is an error. */
export function readExposition(text: string): Map<string, Exposed> {
  const metrics = new Map<string, Exposed>();
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const head = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line);
    if (head) {
      const [, what, name = "", rest = ""] = head;
      const metric = metrics.get(name) ?? { type: "", help: "", labels: new Map() };
      metrics.set(name, metric);
      if (what === "HELP") metric.help = rest;
      else metric.type = rest;
      continue;
    }
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    assert.ok(sample, `no sample: ${line}`);
    const [, name = "", labels = "", value = ""] = sample;
    assert.ok(/^[+-]Inf$/.test(value) || Number.isFinite(Number(value)), `no value: ${line}`);
    const metric = metrics.get(name) ?? metrics.get(name.replace(/_(bucket|sum|count)$/, ""));
    assert.ok(metric, `a sample before its metric: ${line}`);
    LABEL.lastIndex = 0;
    let read = 0;
    for (let match = LABEL.exec(labels); match; match = LABEL.exec(labels)) {
      read = LABEL.lastIndex;
      const [, label = "", seen = ""] = match;
      if (label === "le") continue;
      const values = metric.labels.get(label) ?? new Set();
      metric.labels.set(label, values.add(seen));
    }
    assert.equal(read, labels.length, `labels that cannot be read: ${line}`);
  }
  return metrics;
}

/** GET of /metrics at a Unix socket. */
export function metricsAt(socketPath: string): Promise<string> {
  return new Promise((resolve, reject) => {
    request({ socketPath, path: "/metrics" }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (part) => {
        body += part;
      });
      response.on("end", () => resolve(body));
    })
      .on("error", reject)
      .end();
  });
}
