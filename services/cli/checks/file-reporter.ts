import { enableCompileCache } from "node:module";
import { join } from "node:path";
import { inspect } from "node:util";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import type { TestReport } from "./test-file.ts";

// Loaded by the process of one test file (node --test-reporter): tells over the channel what came of its tests.

interface Event {
  type: string;
  data: {
    name: string;
    line?: number;
    skip?: string | boolean;
    todo?: string | boolean;
    details: { type?: string; error?: Error & { failureType?: string; cause?: unknown } };
  };
}

// This is loaded before the test file: what most of them import is compiled once for all, and kept for what starts after them.
enableCompileCache(join(PROJECT_ROOT, ".cloister/compiled"));

const say = (report: TestReport): void => void process.send?.(report);

// Whoever started it has gone: nobody would end what the tests have started. The group is the file's own (setsid(2)).
process.once("disconnect", () => process.kill(0, "SIGKILL"));
// That alone keeps no process alive.
process.channel?.unref();

export default async function* tell(events: AsyncIterable<Event>): AsyncGenerator<string> {
  for await (const { type, data } of events) {
    if (type === "test:summary") say({ over: true });
    if (type !== "test:pass" && type !== "test:fail") continue;
    const { type: kind, error } = data.details;
    const failed = type === "test:fail";
    // The parent of a test that failed: that one is told already.
    if (failed && error?.failureType === "subtestsFailed") continue;
    // A suite of its own fails by a hook: that is a failure nothing else tells.
    if (kind === "suite" && !failed) continue;
    const aside = data.skip ?? data.todo;
    say({
      name: data.name,
      line: data.line ?? 1,
      ...(kind !== "suite" && aside !== undefined
        ? { skipped: String(aside || "no reason given") }
        : {}),
      ...(failed ? { failure: inspect(error?.cause ?? error, { depth: 4 }) } : {}),
    });
  }
  // What is said, is said over the channel: this keeps it a reporter.
  yield "";
}
