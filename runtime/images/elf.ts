import { closeSync, openSync, readSync } from "node:fs";

/** What the dynamic loader reads of an ELF file before it runs it. */
export interface ElfFacts {
  /** Path of the dynamic loader, absent for static programs and for shared libraries. */
  interpreter: string | undefined;
  /** DT_NEEDED entries, in order. */
  needed: string[];
  /** DT_RPATH and DT_RUNPATH, unexpanded. */
  runPath: string[];
}

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_INTERP = 3;
const DT_NEEDED = 1;
const DT_STRTAB = 5;
const DT_RPATH = 15;
const DT_RUNPATH = 29;
const MAX_PROGRAM_HEADERS = 256;
const MAX_SECTION_BYTES = 1 << 22;

interface Segment {
  type: number;
  offset: number;
  address: number;
  size: number;
}

/** Reads the loader's view of a 64-bit little-endian ELF file; undefined if the file is something else. elf(5) */
export function readElf(path: string): ElfFacts | undefined {
  const fd = openSync(path, "r");
  try {
    const header = readAt(fd, 0, 64);
    if (header.length < 64 || header.readUInt32BE(0) !== 0x7f454c46) return undefined;
    if (header[4] !== 2 || header[5] !== 1) return undefined;
    const segments = readSegments(fd, header);
    const interp = segments.find((segment) => segment.type === PT_INTERP);
    const dynamic = segments.find((segment) => segment.type === PT_DYNAMIC);
    return {
      interpreter: interp && cString(readAt(fd, interp.offset, Math.min(interp.size, 4096)), 0),
      ...(dynamic ? readDynamic(fd, segments, dynamic) : { needed: [], runPath: [] }),
    };
  } finally {
    closeSync(fd);
  }
}

function readSegments(fd: number, header: Buffer): Segment[] {
  const offset = Number(header.readBigUInt64LE(32));
  const entryBytes = header.readUInt16LE(54);
  const count = Math.min(header.readUInt16LE(56), MAX_PROGRAM_HEADERS);
  if (entryBytes < 56) return [];
  const table = readAt(fd, offset, entryBytes * count);
  const segments: Segment[] = [];
  for (let at = 0; at + entryBytes <= table.length; at += entryBytes) {
    segments.push({
      type: table.readUInt32LE(at),
      offset: Number(table.readBigUInt64LE(at + 8)),
      address: Number(table.readBigUInt64LE(at + 16)),
      size: Number(table.readBigUInt64LE(at + 32)),
    });
  }
  return segments;
}

function readDynamic(fd: number, segments: Segment[], dynamic: Segment) {
  const table = readAt(fd, dynamic.offset, Math.min(dynamic.size, MAX_SECTION_BYTES));
  const neededAt: number[] = [];
  const runPathAt: number[] = [];
  let stringsAddress = 0;
  for (let at = 0; at + 16 <= table.length; at += 16) {
    const tag = Number(table.readBigInt64LE(at));
    const value = Number(table.readBigUInt64LE(at + 8));
    if (tag === 0) break;
    if (tag === DT_NEEDED) neededAt.push(value);
    if (tag === DT_RPATH || tag === DT_RUNPATH) runPathAt.push(value);
    if (tag === DT_STRTAB) stringsAddress = value;
  }
  const home = segments.find(
    (segment) =>
      segment.type === PT_LOAD &&
      stringsAddress >= segment.address &&
      stringsAddress < segment.address + segment.size,
  );
  if (!home) return { needed: [], runPath: [] };
  const start = home.offset + stringsAddress - home.address;
  const name = (at: number) => cString(readAt(fd, start + at, 4096), 0);
  return {
    needed: neededAt.map(name),
    runPath: runPathAt.flatMap((at) => name(at).split(":")),
  };
}

function readAt(fd: number, offset: number, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  const got = readSync(fd, buffer, 0, bytes, offset);
  return buffer.subarray(0, got);
}

function cString(buffer: Buffer, from: number): string {
  const end = buffer.indexOf(0, from);
  return buffer.toString("utf8", from, end < 0 ? buffer.length : end);
}
