import { QueueKeys, type QueueOptions, RedisConnection, RedisQueueBackend } from "bullmq";
import { isUnknownScript, PreparedCommands, PreparedScript } from "./prepared-commands.ts";
import { type Redis, scriptOf } from "./redis.ts";

const ADD = "addStandardJob";
const KEYS = 9;

/** BullMQ's own backend, but that the command which adds a job is put together without ioredis: a caller waits for it. */
export class AddingBackend extends RedisQueueBackend {
  readonly #redis: Redis;
  readonly #commands: PreparedCommands;
  #add: PreparedScript | undefined;

  /** The connection stays the caller's. */
  constructor(name: string, options: QueueOptions, redis: Redis) {
    const names = new QueueKeys(options.prefix);
    super(
      new RedisConnection(redis, { shared: true, blocking: false }),
      name,
      names.getKeys(name),
      (type) => names.toKey(name, type),
      options,
    );
    this.#redis = redis;
    this.#commands = new PreparedCommands(redis);
  }

  override execCommand(
    client: Parameters<RedisQueueBackend["execCommand"]>[0],
    command: string,
    args: (string | number | Buffer)[],
  ): unknown {
    const plain = (): unknown => super.execCommand(client, command, args);
    return command === ADD ? this.#addBy(args, plain) : plain();
  }

  async #addBy(args: (string | number | Buffer)[], plain: () => unknown): Promise<unknown> {
    this.#add ??= new PreparedScript(scriptOf(this.#redis, `${ADD}:${this.version}`), KEYS);
    try {
      return await this.#commands.send("evalsha", this.#add.with(args), { replyEncoding: "utf8" });
    } catch (error) {
      if (!isUnknownScript(error)) throw error;
      return await plain();
    }
  }
}
