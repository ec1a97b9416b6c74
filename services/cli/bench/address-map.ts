/** One mapping of a process, from smaps (proc_pid_smaps(5)). */
export interface Mapping {
  start: number;
  end: number;
  offset: number;
  /** Empty for memory without a file. */
  file: string;
  /** Pages that no other process has mapped. */
  privateKib: number;
}

const HEAD = /^([0-9a-f]+)-([0-9a-f]+) \S{4} ([0-9a-f]+) \S+ \d+ *(.*)$/;
const PRIVATE = /^Private_(?:Clean|Dirty): +(\d+) kB$/;

/** The text of /proc/PID/smaps. Addresses of user space fit a number. */
export function readSmaps(text: string): Mapping[] {
  const mappings: Mapping[] = [];
  for (const line of text.split("\n")) {
    const head = HEAD.exec(line);
    if (head) {
      const [start = 0, end = 0, offset = 0] = head
        .slice(1, 4)
        .map((hex) => Number.parseInt(hex, 16));
      mappings.push({ start, end, offset, file: head[4] ?? "", privateKib: 0 });
      continue;
    }
    const size = PRIVATE.exec(line);
    const last = mappings.at(-1);
    if (size && last) last.privateKib += Number(size[1]);
  }
  return mappings;
}

/** Private memory in a range of addresses and beside it. Throws when a mapping lies across an edge of it. */
export function privateKib(
  mappings: readonly Mapping[],
  start: number,
  end: number,
): { inside: number; outside: number } {
  const sums = { inside: 0, outside: 0 };
  for (const one of mappings) {
    const inside = one.start >= start && one.end <= end;
    if (!inside && one.start < end && one.end > start)
      throw new Error(
        `the mapping at ${one.start.toString(16)} lies across the edge of ${start.toString(16)}-${end.toString(16)}`,
      );
    sums[inside ? "inside" : "outside"] += one.privateKib;
  }
  return sums;
}
