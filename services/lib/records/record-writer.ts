import { type InvocationRecord, type LogEntry, logChannel } from "#contracts/invocation";
import { type SerializedRecord, serializeRecord } from "#contracts/usage";
import type { RecordJournal, Segment } from "./record-journal.ts";

/** Where rows go. Rejects with an error whose `code` is a SQLSTATE when the database refused them. */
export interface RecordSink {
  writeRecords(records: SerializedRecord[]): Promise<void>;
  insertLogs(entries: LogEntry[]): Promise<void>;
}

/** A record that waits, and where the journal has it. */
interface WaitingRecord extends SerializedRecord {
  segment?: Segment;
}

export interface RecordWriterOptions {
  sink: RecordSink;
  /** Keeps what waits beyond the end of this process. */
  journal?: RecordJournal;
  /** Live logs; what nobody hears is lost. */
  publish?: (channel: string, message: unknown) => void;
  onProblem?: (error: Error) => void;
  flushMs?: number;
  batchRows?: number;
  /** Bounds while the database is away. */
  maxRecords?: number;
  maxLogBytes?: number;
}

/** Rough bytes of a log row beside its text. */
const LOG_ROW_BYTES = 200;
const MAX_BACKOFF_MS = 10_000;

/**
 * Takes invocation records and log lines off the hot path: adding one is a push, a timer writes them in batches. While the
 * database is away everything waits in bounded memory; when that is full the oldest logs go first, then the oldest
 * records, and both are counted. With a journal, records survive the end of the process.
 */
export class RecordWriter {
  readonly #sink: RecordSink;
  readonly #publish: (channel: string, message: unknown) => void;
  readonly #onProblem: (error: Error) => void;
  readonly #flushMs: number;
  readonly #batchRows: number;
  readonly #maxRecords: number;
  readonly #maxLogBytes: number;
  readonly #journal: RecordJournal | undefined;
  #records: WaitingRecord[] = [];
  #logs: LogEntry[] = [];
  #logBytes = 0;
  /** Logs up to this index were published. */
  #published = 0;
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> | undefined;
  #backoffMs = 0;
  #closed = false;
  readonly dropped = { records: 0, logs: 0 };

  constructor(options: RecordWriterOptions) {
    this.#sink = options.sink;
    this.#journal = options.journal;
    this.#publish = options.publish ?? (() => {});
    this.#onProblem = options.onProblem ?? (() => {});
    this.#flushMs = options.flushMs ?? 200;
    this.#batchRows = options.batchRows ?? 500;
    this.#maxRecords = options.maxRecords ?? 50_000;
    this.#maxLogBytes = options.maxLogBytes ?? 32 * 1024 * 1024;
  }

  get waiting(): { records: number; logs: number } {
    return { records: this.#records.length, logs: this.#logs.length };
  }

  record(record: InvocationRecord): void {
    this.#take(serializeRecord(record));
  }

  /** What has been recorded so far survives this process from now on, if there is a journal. */
  secure(): void {
    this.#journal?.secure();
  }

  /**
   * Takes over what processes that have ended left in the journal; gives how many records that are. `before` hears of them before they can be written;
   * it must not reject.
   */
  async restore(
    before: (records: readonly SerializedRecord[]) => Promise<void> = async () => {},
  ): Promise<number> {
    let count = 0;
    for (const { records, damaged, remove } of this.#journal?.left() ?? []) {
      await before(records);
      for (const record of records) this.#take(record);
      count += records.length;
      // In this process's journal before they leave the other's.
      this.secure();
      remove();
      if (damaged > 0)
        this.#onProblem(new Error(`${damaged} records of a process that was killed are not whole`));
    }
    return count;
  }

  #take(record: SerializedRecord): void {
    const segment = this.#journal?.append(record.json);
    this.#records.push(segment ? { ...record, segment } : record);
    if (this.#records.length > this.#maxRecords) {
      // Cut in large steps: shifting a long array one by one would cost more than the rows are worth.
      const excess = Math.ceil(this.#maxRecords / 10);
      this.#settle(this.#records.splice(0, excess));
      this.dropped.records += excess;
    }
    this.#wake(this.#records.length >= this.#batchRows);
  }

  #settle(records: WaitingRecord[]): void {
    for (const { segment } of records) if (segment) this.#journal?.settle(segment);
  }

  log(entry: LogEntry): void {
    // PostgreSQL's text holds no NUL.
    if (entry.text.includes("\0")) entry.text = entry.text.replaceAll("\0", "\uFFFD");
    this.#logs.push(entry);
    this.#logBytes += entry.text.length + LOG_ROW_BYTES;
    if (this.#logBytes > this.#maxLogBytes) this.#dropOldLogs();
    this.#wake(this.#logs.length >= this.#batchRows);
  }

  /**
   * Writes what is there, at most `boundMs` long. Records that cannot be written then stay in the journal; without one they, and logs in any
   * case, are counted as dropped.
   */
  async close(boundMs: number): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    const end = performance.now() + boundMs;
    // Also for what is on its way to the database.
    while ((this.#flushing || this.#waits) && performance.now() < end) {
      let timer: NodeJS.Timeout | undefined;
      const bound = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, end - performance.now());
      });
      await Promise.race([this.#flush(), bound]);
      clearTimeout(timer);
      if (this.#backoffMs > 0) break;
    }
    if (!this.#journal) this.dropped.records += this.#records.length;
    this.#journal?.close();
    this.dropped.logs += this.#logs.length;
  }

  #dropOldLogs(): void {
    const goal = this.#maxLogBytes * 0.9;
    let count = 0;
    while (this.#logBytes > goal && count < this.#logs.length) {
      this.#logBytes -= (this.#logs[count]?.text.length ?? 0) + LOG_ROW_BYTES;
      count++;
    }
    this.#logs.splice(0, count);
    this.#published = Math.max(0, this.#published - count);
    this.dropped.logs += count;
  }

  #wake(full: boolean): void {
    if (this.#closed) return;
    if (full && this.#backoffMs === 0 && !this.#flushing) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      void this.#flush();
      return;
    }
    if (this.#timer || this.#flushing) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#flush();
    }, this.#backoffMs || this.#flushMs);
  }

  get #waits(): boolean {
    return this.#records.length + this.#logs.length > 0;
  }

  get #full(): boolean {
    return this.#records.length >= this.#batchRows || this.#logs.length >= this.#batchRows;
  }

  #flush(): Promise<void> {
    this.#flushing ??= this.#flushOnce().finally(() => {
      this.#flushing = undefined;
      if (this.#waits) this.#wake(false);
    });
    return this.#flushing;
  }

  async #flushOnce(): Promise<void> {
    this.#publishLogs();
    try {
      do {
        if (this.#records.length > 0) {
          const batch = this.#records.splice(0, this.#batchRows);
          await this.#write(
            batch,
            (rows) => this.#sink.writeRecords(rows),
            (rows) => {
              this.#records.unshift(...rows);
            },
            "records",
            (rows) => this.#settle(rows),
          );
        }
        if (this.#logs.length > 0) {
          // Those that came while the records were written are among them.
          this.#publishLogs();
          const batch = this.#logs.splice(0, this.#batchRows);
          const bytes = bytesOf(batch);
          this.#logBytes -= bytes;
          this.#published = Math.max(0, this.#published - batch.length);
          await this.#write(
            batch,
            (rows) => this.#sink.insertLogs(rows),
            (rows) => {
              this.#logs.unshift(...rows);
              this.#logBytes += bytesOf(rows);
              this.#published += rows.length;
            },
            "logs",
          );
        }
        this.#publishLogs();
        // What came meanwhile waits for the next batch, unless it fills one: a statement for a handful of rows costs as much as for all.
      } while (this.#full || (this.#closed && this.#waits));
      this.#backoffMs = 0;
    } catch (error) {
      this.#backoffMs = Math.min(MAX_BACKOFF_MS, Math.max(500, this.#backoffMs * 2));
      this.#onProblem(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** Writes rows; an outage puts them back and throws, rows the database refuses are found by halving and dropped. */
  async #write<Row>(
    rows: Row[],
    insert: (rows: Row[]) => Promise<void>,
    putBack: (rows: Row[]) => void,
    kind: "records" | "logs",
    settled: (rows: Row[]) => void = () => {},
  ): Promise<void> {
    try {
      await insert(rows);
      settled(rows);
    } catch (error) {
      if (!isRefusal(error)) {
        putBack(rows);
        throw error;
      }
      if (rows.length === 1) {
        this.dropped[kind]++;
        settled(rows);
        this.#onProblem(error as Error);
        return;
      }
      const half = Math.ceil(rows.length / 2);
      const second = rows.slice(half);
      try {
        await this.#write(rows.slice(0, half), insert, putBack, kind, settled);
      } catch (outage) {
        putBack(second);
        throw outage;
      }
      await this.#write(second, insert, putBack, kind, settled);
    }
  }

  #publishLogs(): void {
    if (this.#published >= this.#logs.length) return;
    const byFunction = new Map<string, LogEntry[]>();
    for (const entry of this.#logs.slice(this.#published)) {
      const entries = byFunction.get(entry.functionId);
      if (entries) entries.push(entry);
      else byFunction.set(entry.functionId, [entry]);
    }
    this.#published = this.#logs.length;
    for (const [functionId, entries] of byFunction) this.#publish(logChannel(functionId), entries);
  }
}

const bytesOf = (entries: LogEntry[]): number =>
  entries.reduce((sum, entry) => sum + entry.text.length + LOG_ROW_BYTES, 0);

/**
 * Whether the database said no to the rows themselves: SQLSTATE classes 22 (bad data) and 23 (constraint). Anything
 * else may pass by itself.
 */
function isRefusal(error: unknown): boolean {
  const cause = error instanceof Error && error.cause ? error.cause : error;
  const code = (cause as { code?: unknown }).code;
  return typeof code === "string" && /^2[23][0-9A-Z]{3}$/.test(code);
}
