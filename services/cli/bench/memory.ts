import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import type { ServingSandbox } from "../../worker/sandbox/index.ts";
import { type HostFacts, hostFacts } from "../host/facts.ts";
import { type Mapping, privateKib, readSmaps } from "./address-map.ts";
import { answer, firstAnswer } from "./first-answer.ts";
import { HELLO, layGround } from "./ground.ts";

/** Bytes of guest address space that a monitor reserves, of its own addresses (vmm/README.md). */
const WINDOW_BYTES = 2 ** 39;
const PROGRAM = "/usr/bin/node";
/** Calls before memory is looked at, so that what a machine needs to serve is there. */
const CALLS = 20;

export interface MemoryReport {
  host: HostFacts;
  machines: {
    /** Of the monitor's process, outside the guest's memory; page tables of the guest are in it. */
    monitor_private_kib: number;
    guest_private_kib: number;
  }[];
}

const listSchema = z.object({
  sandboxes: z.array(z.object({ sandbox: z.string(), pid: z.number().int().positive() })),
});

/** Memory of so many micro-VMs of examples/hello that serve at once: what they share is then nobody's own. */
export async function benchMemory(count: number): Promise<MemoryReport> {
  const ground = await layGround(HELLO.node24);
  const machines: ServingSandbox[] = [];
  try {
    for (let made = 0; made < count; made++) {
      const shape = { ...ground.shape, kind: "microvm" as const };
      const assigned = await ground.launcher.launch(shape, "bench", ground.bundle, ground.spec);
      const serving = await firstAnswer(assigned, ground);
      machines.push(serving);
      for (let call = 0; call < CALLS; call++) await answer(serving, ground);
    }
    const { sandboxes } = listSchema.parse(await ground.launcher.request({ op: "list" }));
    const base = loadAddress(join(ground.rootfs, PROGRAM));
    return {
      host: hostFacts(),
      machines: machines.map(({ id }) => {
        const pid = sandboxes.find(({ sandbox }) => sandbox === id)?.pid;
        if (pid === undefined) throw new Error(`the micro-VM ${id} has ended`);
        const mappings = readSmaps(readFileSync(`/proc/${pid}/smaps`, "latin1"));
        const start = windowOf(mappings, base);
        const { inside, outside } = privateKib(mappings, start, start + WINDOW_BYTES);
        return { monitor_private_kib: outside, guest_private_kib: inside };
      }),
    };
  } finally {
    for (const machine of machines) await machine.end().catch(() => {});
    await ground.close();
  }
}

/** Where guest address 0 is: the guest's program is mapped from its file at the address that the file asks for. */
function windowOf(mappings: readonly Mapping[], base: number): number {
  const program = mappings.find(({ file, offset }) => file.endsWith(PROGRAM) && offset === 0);
  if (!program) throw new Error(`the monitor has ${PROGRAM} mapped nowhere`);
  const start = program.start - base;
  const covered = mappings
    .filter((one) => one.start >= start && one.end <= start + WINDOW_BYTES)
    .reduce((sum, one) => sum + one.end - one.start, 0);
  // The whole window is always mapped, be it without any access.
  if (covered !== WINDOW_BYTES)
    throw new Error(`no guest memory of ${WINDOW_BYTES} bytes lies at ${start.toString(16)}`);
  return start;
}

/** The lowest address that a program with fixed addresses asks for (elf(5), 64 bit, little-endian). */
function loadAddress(path: string): number {
  const [EXECUTABLE, LOAD, HEADER_BYTES] = [2, 1, 56];
  const file = openSync(path, "r");
  const bytes = Buffer.alloc(4096);
  readSync(file, bytes, 0, bytes.length, 0);
  closeSync(file);
  const at = Number(bytes.readBigUInt64LE(32));
  for (let index = 0; index < bytes.readUInt16LE(56); index++) {
    const header = at + index * HEADER_BYTES;
    if (bytes.readUInt16LE(16) === EXECUTABLE && bytes.readUInt32LE(header) === LOAD)
      return Number(bytes.readBigUInt64LE(header + 16));
  }
  throw new Error(`${path} is no program with fixed addresses`);
}
