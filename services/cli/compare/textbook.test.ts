import assert from "node:assert/strict";
import { test } from "node:test";
import { distribution } from "#report/statistics";
import type { BootReport, ModeReport } from "../bench/boot.ts";
import { figures } from "../bench/overhead-figures.ts";
import { hostFacts } from "../host/facts.ts";
import { textbookRows, textbookTable } from "./textbook.ts";
import { textbookPage } from "./textbook-page.ts";

const mode = (name: string, ms: number, more: Partial<ModeReport> = {}): ModeReport => ({
  mode: name,
  ...distribution([ms], 0),
  p50_interval: null,
  times_ms: [ms],
  phases: {},
  steps: {},
  ...more,
});

const surface = { kernel_calls: 362, container_calls: 261, monitor_calls: 53, image_bytes: 115e6 };

function rowsOf(modes: ModeReport[], kvm = true) {
  const boot = { host: hostFacts(), modes } as unknown as BootReport;
  const times = { process: [10, 10], container: [11, 11], microvm: [60, 60] };
  const syscalls = {
    ...figures(
      "syscalls",
      (path) => ({ times: times[path], rounds: [0, 1], failures: [], slicesMs: new Map() }),
      1,
    ),
    exits: { syscall: 5000 },
  };
  const overhead = {
    host: hostFacts(),
    warmUpRounds: 3,
    roundsOfASandbox: 2,
    workloads: [syscalls],
    unavailable: [],
    firstFailures: {},
  };
  return textbookRows({ surface, boot, overhead }, kvm);
}

test("each cell is what was measured, and a dash where nothing was", () => {
  const rows = rowsOf([
    mode("process", 70, { page_faults: 5000, namespaces: [] }),
    mode("container-cold", 80, { private_kib: 2048, namespaces: ["user", "pid"] }),
    mode("runsc", 130, { namespaces: ["pid"] }),
    mode("microvm-restored", 9, { exits: { syscall: 5, fault: 0 }, private_kib: 1024 }),
  ]);
  const cell = (property: RegExp) => rows.find((row) => property.test(row.property))?.cells;
  assert.equal(cell(/booted/)?.ours_container, "80 / 80 ms");
  assert.equal(cell(/booted/)?.ours_microvm, "-");
  assert.equal(cell(/booted/)?.runc, "-");
  assert.equal(cell(/in reach/)?.ours_microvm, "0; its monitor 53");
  assert.equal(cell(/in reach/)?.runc, "-");
  assert.match(cell(/in reach/)?.runsc ?? "", /not counted/);
  assert.equal(cell(/booted/)?.runsc, "130 / 130 ms");
  assert.equal(cell(/namespaces/)?.process, "0");
  assert.equal(cell(/namespaces/)?.ours_container, "2: user pid");
  assert.equal(cell(/its own after/)?.ours_microvm, "- cold, 1 MiB restored");
  assert.equal(cell(/5000 system calls/)?.ours_microvm, "+500.0 %");
  // 50 ms more for 5000 of them.
  assert.match(cell(/cost of an exit/)?.ours_microvm ?? "", /^10 µs a system call; - /);
  assert.equal(cell(/^exits/)?.ours_microvm, "- cold; 5 system calls restored");
  assert.ok(rows.every(({ cells }) => Object.values(cells).every((text) => text !== "")));
});

test("without KVM no cell of a micro-VM has a number; columns of nobody are left out", () => {
  const rows = rowsOf([mode("process", 70)], false);
  assert.ok(rows.every(({ cells }) => cells.ours_microvm === "no /dev/kvm here"));
  const { columns, rows: shown } = textbookTable({ rows });
  assert.ok(!columns.some(({ title }) => title === "runc"));
  assert.ok(shown.every((cells) => cells.length === columns.length));
});

test("the report of it holds every cell and source, and needs nothing from elsewhere", () => {
  const rows = rowsOf([mode("process", 70), mode("container-cold", 80)]);
  const remarks = [{ mode: "runsc", remark: "platform systrap" }];
  const boot = { host: hostFacts(), warmUpRounds: 3, modes: [mode("process", 70)], remarks };
  const sources = ["[1] somebody"];
  const made = textbookPage({ host: hostFacts(), n: 1, surface, boot, rows, sources } as never);
  assert.match(made, /80 \/ 80 ms/);
  assert.match(made, /\[1\] somebody/);
  assert.match(made, /runsc: platform systrap\./);
  assert.doesNotMatch(made, /(?:src|href)="(?!#)/);
});
