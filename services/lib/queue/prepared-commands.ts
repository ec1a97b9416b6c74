import { createHash } from "node:crypto";
import { Command, type Redis } from "ioredis";

/** An argument as Redis reads it. */
export const bulk = (argument: string | number): string => {
  const text = String(argument);
  return `$${Buffer.byteLength(text)}\r\n${text}\r\n`;
};

/** The beginning of a command that has `more` arguments after these: what is the same each time is put together once. */
export function prepare(words: readonly (string | number)[], more: number): string {
  let text = `*${words.length + more}\r\n`;
  for (const word of words) text += bulk(word);
  return text;
}

/** The command of a script, which Redis knows by its SHA-1 once it has seen it. */
export class PreparedScript {
  readonly #head: string;
  readonly #keys: number;

  /** `keys`: how many of its arguments are keys. */
  constructor(text: string, keys: number) {
    this.#head = bulk("evalsha") + bulk(createHash("sha1").update(text).digest("hex"));
    this.#keys = keys;
  }

  with(args: readonly (string | number | Buffer)[]): Buffer {
    const parts: Buffer[] = [];
    let text = `*${args.length + 3}\r\n${this.#head}${bulk(this.#keys)}`;
    for (const argument of args) {
      if (!Buffer.isBuffer(argument)) {
        text += bulk(argument);
        continue;
      }
      parts.push(Buffer.from(`${text}$${argument.length}\r\n`), argument);
      text = "\r\n";
    }
    parts.push(Buffer.from(text));
    return Buffer.concat(parts);
  }
}

/** Whether Redis does not know the script, or has forgotten it: it has not run. */
export const isUnknownScript = (error: unknown): boolean =>
  error instanceof Error && error.message.startsWith("NOSCRIPT");

/** ioredis writes it, waits for its answer and fails it as any other, but makes nothing of its arguments and sets no timer for it. */
export class PreparedCommand extends Command {
  readonly #bytes: string | Buffer;
  /** At which tick of its connection it was sent. */
  sentAt = 0;

  constructor(name: string, bytes: string | Buffer, options: { replyEncoding?: "utf8" } = {}) {
    super(name, [], { replyEncoding: options.replyEncoding ?? null });
    this.#bytes = bytes;
  }

  override toWritable(): string | Buffer {
    return this.#bytes;
  }

  override setTimeout(): void {}
}

/** How often it is looked whether an answer is overdue, ms. */
const TICK_MS = 500;
/** A command without an answer for so many whole ticks, 5 s, has failed. */
const BOUND_TICKS = 10;

/** Commands of which a connection sends so many that what each of them costs in this process counts. Answers come as ioredis's numbers, and buffers unless they are to be text. */
export class PreparedCommands {
  readonly #redis: Redis;
  /** Without an answer; the oldest come first. */
  readonly #waiting = new Set<PreparedCommand>();
  #ticks = 0;
  /** One for all of them. */
  #timer: NodeJS.Timeout | undefined;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  /** Rejects as the connection's other commands do, and when there is no answer in time. */
  async send(
    name: string,
    bytes: string | Buffer,
    options: { replyEncoding?: "utf8" } = {},
  ): Promise<unknown> {
    const command = new PreparedCommand(name, bytes, options);
    command.sentAt = this.#ticks;
    this.#waiting.add(command);
    this.#timer ??= setInterval(this.#tick, TICK_MS).unref();
    try {
      return await (this.#redis.sendCommand(command) as Promise<unknown>);
    } finally {
      this.#waiting.delete(command);
    }
  }

  readonly #tick = (): void => {
    if (this.#waiting.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
      return;
    }
    this.#ticks++;
    for (const command of this.#waiting) {
      // The first tick may have come right after it was sent.
      if (this.#ticks - command.sentAt <= BOUND_TICKS) break;
      this.#waiting.delete(command);
      command.reject(new Error("Command timed out"));
    }
  };
}
