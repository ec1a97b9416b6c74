import { markdownTable } from "#report/page";
import { EXIT, Failure } from "../failure.ts";
import { writeReport } from "../terminal/report-file.ts";
import { printJson, table } from "../terminal/table.ts";

export interface ShownTextbook {
  n: number;
  json?: boolean;
  markdown?: boolean;
  html?: string;
}

/** `compare --table`. */
export async function showTextbook({ n, json, markdown, html }: ShownTextbook): Promise<void> {
  if (process.getuid?.() !== 0)
    throw new Failure("The table is measured as root.", "Run it as root.", EXIT.usage);
  if (html !== undefined) writeReport(html, "", "a");
  const { measureTextbook, textbookTable } = await import("./textbook.ts");
  const { textbookPage } = await import("./textbook-page.ts");
  const abort = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => abort.abort());
  const terminal = process.stderr.isTTY === true;
  const report = await measureTextbook({
    n,
    signal: abort.signal,
    onProgress(what, done, of) {
      if (terminal)
        process.stderr.write(`\r\x1b[K${what}: round ${done} of ${of}${done === of ? "\n" : ""}`);
      else if (done % 10 === 0 || done === of)
        process.stderr.write(`${what}: round ${done} of ${of}\n`);
    },
  });
  if (html !== undefined) {
    writeReport(html, textbookPage(report));
    process.stderr.write(`Report: ${html}\n`);
  }
  if (json) printJson(report);
  else {
    const { columns, rows } = textbookTable(report);
    const { cpu, cores, kernel, cgroup } = report.host;
    process.stdout.write(
      `./cloister compare --table -n ${n} on ${cpu}, ${cores} cores, Linux ${kernel}, cgroups ${cgroup}; first answers and overhead of Node 24 and Python, all kinds in every round\n\n`,
    );
    process.stdout.write(markdown ? markdownTable(columns, rows) : table(columns, rows));
    process.stdout.write(`\n${report.sources.join("\n")}\n`);
    const failures = { ...report.boot.firstFailures, ...report.overhead.firstFailures };
    for (const { mode, reason } of report.boot.unavailable)
      process.stdout.write(`${mode}: ${reason}\n`);
    for (const { mode, remark } of report.boot.remarks)
      process.stdout.write(`${mode}: ${remark}\n`);
    for (const [name, text] of Object.entries(failures))
      process.stdout.write(`${name}, first failure: ${text}\n`);
    if (Object.keys(failures).length > 0) process.exitCode = EXIT.failed;
  }
  if (abort.signal.aborted)
    throw new Failure(
      "The measurement was interrupted.",
      "What is shown is what was measured.",
      EXIT.interrupted,
    );
}
