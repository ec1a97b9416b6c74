import {
  accessSync,
  closeSync,
  constants,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import type { SerializedRecord } from "#contracts/usage";

/** Part of a journal: a file of records, one a line. It goes once none of them waits for the database any more. */
export interface Segment {
  readonly path: string;
  readonly fd: number;
  bytes: number;
  /** Records in it that the database does not have yet. */
  waiting: number;
}

/** A file that a process which has ended left, and what is in it. */
export interface LeftRecords {
  records: SerializedRecord[];
  /** Lines that are no record: one that was not written whole. */
  damaged: number;
  remove: () => void;
}

/** A segment that is larger than this is followed by another. */
const SEGMENT_BYTES = 4 * 1024 * 1024;
const NAME = /^([a-z]+)-(\d+)-(\d+)-(\d+)\.jsonl$/;

/**
 * Keeps records that wait for the database in files, for the next process of the same service to write should this one be killed. What has
 * been written survives the end of the process, not of the machine. Processes on one machine may share the folder: a file is named
 * for the process that writes it.
 */
export class RecordJournal {
  readonly #folder: string;
  readonly #service: string;
  readonly #segmentBytes: number;
  readonly #onProblem: (error: Error) => void;
  #current: Segment | undefined;
  #unwritten: string[] = [];
  #next = 1;
  readonly #open = new Set<Segment>();

  /** Throws when the folder cannot be written. */
  constructor(
    folder: string,
    service: string,
    options: { onProblem?: (error: Error) => void; segmentBytes?: number } = {},
  ) {
    accessSync(folder, constants.W_OK | constants.X_OK);
    this.#folder = folder;
    this.#service = service;
    this.#segmentBytes = options.segmentBytes ?? SEGMENT_BYTES;
    this.#onProblem = options.onProblem ?? (() => {});
  }

  /** What processes of this service that have ended left, a file at a time. Each is to be removed once its records are in this journal. */
  *left(): Generator<LeftRecords> {
    for (const name of readdirSync(this.#folder).sort()) {
      const [, service, pid, startTime] = NAME.exec(name) ?? [];
      if (service !== this.#service || startTimeOf(Number(pid)) === startTime) continue;
      const path = join(this.#folder, name);
      let text: string;
      try {
        text = readFileSync(path, "utf8");
      } catch {
        // Another that started at the same time has taken it over.
        continue;
      }
      const records: SerializedRecord[] = [];
      let damaged = 0;
      for (const line of text.split("\n")) {
        const record = parsed(line);
        if (record) records.push(record);
        else if (line !== "") damaged++;
      }
      yield { records, damaged, remove: () => removeIfThere(path) };
    }
  }

  /** The record is in the journal after the next `secure`. Undefined when no file can be opened. */
  append(json: string): Segment | undefined {
    if (this.#current && this.#current.bytes >= this.#segmentBytes) this.#turnOver();
    this.#current ??= this.#begin();
    const segment = this.#current;
    if (!segment) return undefined;
    if (this.#unwritten.length === 0) setImmediate(this.#secureLater);
    this.#unwritten.push(json);
    segment.waiting++;
    // Characters, which for these records are bytes; only the size of a segment hangs on it.
    segment.bytes += json.length + 1;
    return segment;
  }

  /** Hands what was appended to the kernel; from then on it survives this process. */
  secure(): void {
    if (this.#unwritten.length === 0) return;
    const bytes = Buffer.from(`${this.#unwritten.join("\n")}\n`);
    this.#unwritten = [];
    const { fd } = this.#current as Segment;
    try {
      for (let at = 0; at < bytes.length; at += writeSync(fd, bytes, at));
    } catch (error) {
      // A full disk: the records are in memory yet. What follows must not stand behind half a line.
      this.#current = undefined;
      this.#onProblem(error as Error);
    }
  }

  /** The database has the record, or it is given up. */
  settle(segment: Segment): void {
    segment.waiting--;
    if (segment.waiting === 0 && segment !== this.#current) this.#remove(segment);
  }

  /** Removes what nothing waits in, and leaves the rest to the next process. */
  close(): void {
    this.secure();
    this.#current = undefined;
    for (const segment of [...this.#open]) {
      if (segment.waiting === 0) this.#remove(segment);
      else {
        fsyncSync(segment.fd);
        closeSync(segment.fd);
        this.#open.delete(segment);
      }
    }
  }

  readonly #secureLater = (): void => this.secure();

  #turnOver(): void {
    this.secure();
    const full = this.#current;
    this.#current = undefined;
    if (full?.waiting === 0) this.#remove(full);
  }

  #begin(): Segment | undefined {
    const own = `${this.#service}-${process.pid}-${startTimeOf(process.pid)}`;
    const path = join(this.#folder, `${own}-${this.#next++}.jsonl`);
    try {
      // Not appended to: a name is used once.
      const segment = { path, fd: openSync(path, "wx", 0o600), bytes: 0, waiting: 0 };
      this.#open.add(segment);
      return segment;
    } catch (error) {
      this.#onProblem(error as Error);
      return undefined;
    }
  }

  #remove(segment: Segment): void {
    if (!this.#open.delete(segment)) return;
    closeSync(segment.fd);
    removeIfThere(segment.path);
  }
}

/** When a process began, in the kernel's ticks since boot; undefined when there is none. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The name, in parentheses, may hold anything; the time is the 20th field after it (proc_pid_stat(5)).
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

function parsed(line: string): SerializedRecord | undefined {
  try {
    const { id, lost, acceptedAtMs } = JSON.parse(line) as Record<string, unknown>;
    if (typeof id !== "string" || typeof acceptedAtMs !== "number") return undefined;
    return { id, lost: lost === true, json: line };
  } catch {
    return undefined;
  }
}

function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
