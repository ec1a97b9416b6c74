import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import type { InvocationRecord } from "#contracts/invocation";
import { lostRecord } from "#contracts/lost-record";
import type { SerializedRecord } from "#contracts/usage";
import { RecordJournal } from "./record-journal.ts";
import { type RecordSink, RecordWriter } from "./record-writer.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "cloister-records-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const record = (id: string): InvocationRecord =>
  lostRecord(
    { id, tenantId: "ten_1", functionId: "fn_1", versionId: "ver_1", acceptedAtMs: 1 },
    "worker_lost",
    "node_1",
  );

const idsLeft = (service: string): string[] =>
  [...new RecordJournal(folder, service).left()].flatMap(({ records }) =>
    records.map(({ id }) => id),
  );

/** A writer whose database is away until `there` is called. */
function writerWith(options: { segmentBytes?: number; maxRecords?: number } = {}) {
  const rows: SerializedRecord[] = [];
  let away = true;
  let changed = (): void => {};
  const sink: RecordSink = {
    async writeRecords(records) {
      if (away) throw new Error("connect ECONNREFUSED");
      rows.push(...records);
      changed();
    },
    async insertLogs() {},
  };
  const { segmentBytes, maxRecords } = options;
  const writer = new RecordWriter({
    sink,
    journal: new RecordJournal(folder, "worker", segmentBytes ? { segmentBytes } : {}),
    flushMs: 5,
    ...(maxRecords ? { maxRecords } : {}),
  });
  return {
    writer,
    rows,
    there: () => {
      away = false;
    },
    until: (count: number) =>
      new Promise<void>((resolve) => {
        changed = () => rows.length >= count && resolve();
        changed();
      }),
  };
}

/** A process that writes to the journal and is killed: what it secured must be there. */
async function killedAfter(script: string): Promise<void> {
  const code = `
    const { RecordJournal } = await import(${JSON.stringify(join(import.meta.dirname, "record-journal.ts"))});
    const journal = new RecordJournal(${JSON.stringify(folder)}, "worker");
    const text = (id) => JSON.stringify({ id, acceptedAtMs: 1 });
    ${script}
    process.stdout.write("written");
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  await once(child, "exit");
}

test("what a killed process has secured is there for the next, whole", {
  timeout: 30_000,
}, async () => {
  await killedAfter(`
    for (let i = 0; i < 3; i++) journal.append(text("inv_" + i));
    journal.secure();`);
  const left = idsLeft("worker");
  assert.deepEqual(left, ["inv_0", "inv_1", "inv_2"]);
  assert.deepEqual(idsLeft("gateway"), [], "another service's are not touched");
  const { writer, rows, there, until } = writerWith();
  there();
  assert.equal(await writer.restore(), left.length);
  await until(left.length);
  assert.deepEqual(
    rows.map(({ id }) => id),
    left,
  );
  await writer.close(1000);
  assert.deepEqual(readdirSync(folder), []);
});

test("what is appended is in the file by the end of the turn, without being asked", async () => {
  const journal = new RecordJournal(folder, "worker");
  journal.append('{"id":"inv_1","acceptedAtMs":1}');
  const file = (): string => readFileSync(join(folder, readdirSync(folder)[0] as string), "utf8");
  assert.equal(file(), "");
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(file(), '{"id":"inv_1","acceptedAtMs":1}\n');
  journal.close();
});

test("a line that was not written whole costs only itself", async () => {
  const whole = JSON.stringify(record("inv_whole"));
  writeFileSync(join(folder, "worker-999999999-1-1.jsonl"), `${whole}\n${whole.slice(0, 50)}`);
  const problems: string[] = [];
  const rows: string[] = [];
  const writer = new RecordWriter({
    sink: {
      async writeRecords(records) {
        rows.push(...records.map(({ id }) => id));
      },
      async insertLogs() {},
    },
    journal: new RecordJournal(folder, "worker"),
    onProblem: ({ message }) => problems.push(message),
  });
  assert.equal(await writer.restore(), 1);
  await writer.close(1000);
  assert.deepEqual(rows, ["inv_whole"]);
  assert.equal(problems.length, 1);
  assert.match(problems[0] ?? "", /^1 records .* not whole/);
});

test("the journal of a process that lives is left alone, also by one that shares its folder", () => {
  const journal = new RecordJournal(folder, "worker");
  journal.append(JSON.stringify(record("inv_1")));
  journal.secure();
  assert.deepEqual(idsLeft("worker"), []);
  assert.equal(readdirSync(folder).length, 1);
  journal.close();
});

test("files go once the database has what is in them", async () => {
  const { writer, rows, there, until } = writerWith({ segmentBytes: 2000 });
  for (let i = 0; i < 100; i++) writer.record(record(`inv_${i}`));
  writer.secure();
  assert.ok(readdirSync(folder).length > 5, "several files");
  there();
  await until(100);
  assert.equal(new Set(rows.map(({ id }) => id)).size, 100);
  await writer.close(1000);
  assert.deepEqual(readdirSync(folder), []);
});

test("what cannot be written before the end stays for the next process, and is not called dropped", async () => {
  const { writer } = writerWith();
  writer.record(record("inv_kept"));
  await writer.close(20);
  assert.deepEqual(writer.dropped, { records: 0, logs: 0 });
  const [name] = readdirSync(folder) as [string];
  assert.match(readFileSync(join(folder, name), "utf8"), /"inv_kept"/);
});

test("records that no longer fit in memory leave the journal too", async () => {
  const { writer } = writerWith({ segmentBytes: 500, maxRecords: 20 });
  for (let i = 0; i < 200; i++) writer.record(record(`inv_${i}`));
  writer.secure();
  assert.ok(writer.dropped.records > 0);
  const lines = readdirSync(folder).flatMap((name) =>
    readFileSync(join(folder, name), "utf8").split("\n").filter(Boolean),
  );
  assert.ok(lines.length <= 25, `${lines.length} lines`);
  assert.ok(lines.some((line) => line.includes('"inv_199"')));
  await writer.close(20);
});

test("a folder that cannot be written is told at once", () => {
  assert.throws(() => new RecordJournal(join(folder, "nowhere"), "worker"), /ENOENT/);
});
