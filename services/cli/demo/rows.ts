import type { Path } from "#contracts/function";
import { deploy } from "../commands/deploy.ts";
import type { Api } from "../http/api.ts";
import { callExample } from "./call.ts";
import { expectationOf } from "./expected.ts";

/** One line of the demo's table: a function on a path, from one kind of start. */
export interface Row {
  function: string;
  runtime: string;
  path: Path;
  start: string;
  status: number;
  /** First call of a fresh sandbox, ms. */
  first_ms: number | null;
  warm_p50_ms: number | null;
  answer: string;
  right: boolean;
  /** Why the path was not to be had; then the row is neither right nor wrong. */
  unavailable?: string;
}

/** Calls on the sandbox of the first one, for the median. */
const WARM_CALLS = 20;

/**
 * Publishes an example twice for each path and calls each version: the first start of a runtime is cold, and leaves cells prepared for the next. Gives a row per kind of start that
 * was seen on each path, or one that says that this machine does not have the path.
 */
export async function demonstrate(
  api: Api,
  name: string,
  folder: string,
  dataDir: string,
): Promise<Row[]> {
  const rows: Row[] = [];
  for (const path of ["container", "microvm"] as const) {
    const starts: string[] = [];
    for (let version = 1; version <= 2; version++) {
      const deployed = await deploy(folder, { dataDir, name });
      const config = deployed.config as { runtime?: string } | undefined;
      const runtime = (deployed.runtime as string | undefined) ?? config?.runtime ?? "";
      const row = await pathRow(api, name, runtime, path);
      // A second row shows another kind of start, or a fault.
      if (version === 1 || !row.right || !starts.includes(row.start)) rows.push(row);
      starts.push(row.start);
    }
  }
  return rows;
}

async function pathRow(api: Api, name: string, runtime: string, path: Path): Promise<Row> {
  const wanted = expectationOf(name);
  const first = await callExample(api, name, wanted, path);
  const unavailable = first.status === 503 && first.code === "isolation_unavailable";
  const times: number[] = [];
  let right = first.right;
  for (let n = 0; n < (wanted.warmCalls ?? WARM_CALLS) && right; n++) {
    const again = await callExample(api, name, wanted, path);
    right = again.right;
    if (again.start === "warm") times.push(again.durationMs);
  }
  times.sort((a, b) => a - b);
  return {
    function: name,
    runtime,
    path,
    start: first.start,
    status: first.status,
    first_ms: unavailable ? null : first.durationMs,
    warm_p50_ms: times[Math.floor((times.length - 1) / 2)] ?? null,
    answer: unavailable ? "not to be had" : excerpt(first.answer),
    // A path this machine does not have must be refused with its own error, never served by the other.
    right: right || unavailable,
    ...(unavailable ? { unavailable: first.answer } : {}),
  };
}

const excerpt = (text: string): string => {
  const line = text.replaceAll(/\s+/g, " ").trim();
  return line.length > 48 ? `${line.slice(0, 47)}…` : line;
};
