import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type RedisServer, startRedisServer } from "#testkit/redis-server";
import { bulk, PreparedCommands, prepare } from "./prepared-commands.ts";
import { connectRedis, type Redis } from "./redis.ts";

describe("prepared commands", { timeout: 60_000 }, () => {
  let server: RedisServer;
  let redis: Redis;
  let commands: PreparedCommands;
  before(async () => {
    server = await startRedisServer();
    redis = connectRedis(server.url, "request");
    commands = new PreparedCommands(redis);
  });
  after(async () => {
    redis.disconnect();
    await server.stop();
  });

  test("whatever their arguments hold, Redis reads them as they are, in the order of all commands", async () => {
    const set = prepare(["set", "a key"], 1);
    const values = ["", "plain", "\r\n$3\r\nabc\r\n", "ä€𝄞", "*1\r\n$8\r\nFLUSHALL\r\n", "0"];
    for (const value of values) {
      const [, prepared, plain] = await Promise.all([
        commands.send("set", set + bulk(value)),
        commands.send("get", prepare(["get", "a key"], 0)),
        redis.get("a key"),
      ]);
      assert.deepEqual([String(prepared), plain], [value, value]);
    }
    assert.equal(await commands.send("incr", prepare(["incr", "a key"], 0)), 1);
  });

  test("what Redis refuses is its error, and those behind it are answered", async () => {
    const [wrong, right] = await Promise.allSettled([
      commands.send("evalsha", prepare(["evalsha", "0".repeat(40), 0], 0)),
      commands.send("echo", prepare(["echo", "still there"], 0)),
    ]);
    assert.match(String(wrong.status === "rejected" && wrong.reason), /NOSCRIPT/);
    assert.equal(String(right.status === "fulfilled" && right.value), "still there");
  });

  test("a Redis that stands still is given up on, and answers again when it goes on", async () => {
    server.process.kill("SIGSTOP");
    try {
      const asked = performance.now();
      await assert.rejects(commands.send("ping", prepare(["ping"], 0)), /Command timed out/);
      assert.ok(performance.now() - asked >= 5000, "never before its time");
    } finally {
      server.process.kill("SIGCONT");
    }
    // The late answer is nobody's: the next command gets its own.
    assert.equal(String(await commands.send("echo", prepare(["echo", "next"], 0))), "next");
  });

  test("those under way when the connection breaks fail in the end, and are not sent again", async () => {
    const once = new PreparedCommands(redis);
    await redis.set("times", 0);
    redis.stream.cork();
    const lost = once.send("incr", prepare(["incr", "times"], 0));
    redis.stream.destroy();
    await assert.rejects(lost);
    assert.equal(await redis.get("times"), "0");
  });
});
