import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { effectiveQuota, type InvocationLimits, monthOf } from "#contracts/quota";
import { type RedisServer, startRedisServer } from "#testkit/redis-server";
import { type CountersAnswer, QuotaCounters } from "./quota-counters.ts";
import { connectRedis, disconnectRedis, type Redis } from "./redis.ts";

/** GCRA in whole numbers: times in microseconds multiplied by the calls a second, so that nothing is ever rounded. */
class ExactBucket {
  readonly #perSecond: bigint;
  readonly #burst: bigint;
  #fullAt = 0n;

  constructor(perSecond: number, burst: number) {
    this.#perSecond = BigInt(perSecond);
    this.#burst = BigInt(burst);
  }

  /** Whether a call at `nowUs` is let in, and how many more would be. */
  take(nowUs: number): { admitted: boolean; left: number } {
    const now = BigInt(nowUs) * this.#perSecond;
    const interval = 1_000_000n;
    let fullAt = this.#fullAt > now ? this.#fullAt : now;
    const admitted = fullAt - now <= (this.#burst - 1n) * interval;
    if (admitted) {
      fullAt += interval;
      this.#fullAt = fullAt;
    }
    return { admitted, left: Number((this.#burst * interval - (fullAt - now)) / interval) };
  }
}

/** Numbers that look random and are the same in every run (Park and Miller). */
function* numbers(seed: number): Generator<number, never> {
  for (let state = seed; ; ) {
    state = (state * 48_271) % 2_147_483_647;
    yield state / 2_147_483_647;
  }
}

describe("quota counters", { timeout: 120_000 }, () => {
  let server: RedisServer;
  let redis: Redis;
  let counters: QuotaCounters;
  let made = 0;

  before(async () => {
    server = await startRedisServer();
    redis = connectRedis(server.url, "request", assert.ifError);
    counters = new QuotaCounters(redis);
  });
  after(async () => {
    await disconnectRedis(redis);
    await server.stop();
  });

  const limitsOf = (
    tenant: InvocationLimits["tenant"],
    own: InvocationLimits["function"] = {},
  ): InvocationLimits => ({ tenantId: `ten_${made++}`, functionId: "fn_1", tenant, function: own });

  const quotaOf = (answer: CountersAnswer): string | undefined =>
    typeof answer.refused === "object"
      ? `${answer.refused.of} ${answer.refused.quota}`
      : answer.refused;

  for (const [perSecond, burst] of [
    [1000, 1],
    [1000, 50],
    [3000, 7],
    [7000, 100],
    [9973, 3],
  ] as const)
    test(`${perSecond} a second, ${burst} at once: every decision is that of exact arithmetic`, async () => {
      const limits = limitsOf({ requests: { perSecond, burst } });
      const model = new ExactBucket(perSecond, burst);
      const random = numbers(perSecond + burst);
      const counts = { admitted: 0, refused: 0 };
      for (let round = 0; round < 150; round++) {
        // Bursts of different sizes, sent in one write, with rests of different lengths between.
        const size = 1 + Math.floor(random.next().value * (2 * burst + 10));
        const answers = await Promise.all(
          Array.from({ length: size }, () => counters.admit(limits, "inv_1")),
        );
        for (const answer of answers) {
          const expected = model.take(answer.nowUs);
          assert.equal(answer.refused === undefined, expected.admitted);
          assert.equal(answer.tenant.requests?.left, expected.left);
          counts[expected.admitted ? "admitted" : "refused"]++;
        }
        if (random.next().value < 0.2) await pause(random.next().value * 3);
      }
      assert.ok(counts.admitted > 20 && counts.refused > 20, JSON.stringify(counts));
    });

  test("a refusal tells when to come again, and costs nothing", async () => {
    const limits = limitsOf({ requests: { perSecond: 0.1, burst: 2 } });
    const answers = [];
    for (let call = 0; call < 5; call++) answers.push(await counters.admit(limits, "inv_1"));
    assert.deepEqual(answers.map(quotaOf), [
      undefined,
      undefined,
      ...Array(3).fill("tenant requestsPerSecond"),
    ]);
    const waits = answers.slice(2).map(({ retryAfterMs }) => retryAfterMs);
    for (const ms of waits) assert.ok(ms > 9000 && ms <= 10_000, String(ms));
    assert.deepEqual(
      waits,
      [...waits].sort((a, b) => b - a),
    );
    assert.deepEqual(
      answers.map(({ tenant }) => tenant.requests?.left),
      [1, 0, 0, 0, 0],
    );
  });

  test("calls at once are those that have not ended, of all functions together and of each", async () => {
    const limits = limitsOf({ concurrency: 3 }, { concurrency: 2 });
    const other = { ...limits, functionId: "fn_2", function: {} };
    assert.equal(quotaOf(await counters.admit(limits, "inv_a")), undefined);
    assert.equal(quotaOf(await counters.admit(limits, "inv_b")), undefined);
    assert.equal(quotaOf(await counters.admit(limits, "inv_c")), "function concurrency");
    const third = await counters.admit(other, "inv_d");
    assert.deepEqual([quotaOf(third), third.tenant.concurrency], [undefined, 0]);
    assert.equal(quotaOf(await counters.admit(other, "inv_e")), "tenant concurrency");
    counters.release(limits, "inv_a");
    assert.equal(quotaOf(await counters.admit(limits, "inv_c")), undefined);
    assert.equal(quotaOf(await counters.admit(other, "inv_e")), "tenant concurrency");
  });

  test("what one limit refuses, no other one counts", async () => {
    const limits = limitsOf(
      { requests: { perSecond: 0.1, burst: 10 }, concurrency: 1 },
      { requests: { perSecond: 0.1, burst: 5 } },
    );
    await counters.admit(limits, "inv_a");
    for (let call = 0; call < 20; call++)
      assert.equal(quotaOf(await counters.admit(limits, "inv_b")), "tenant concurrency");
    counters.release(limits, "inv_a");
    const next = await counters.admit(limits, "inv_b");
    assert.deepEqual(
      [quotaOf(next), next.tenant.requests?.left, next.function.requests?.left],
      [undefined, 8, 3],
    );
  });

  test("a lease ends by itself, one that is renewed or made again does not", async () => {
    const limits = limitsOf({ concurrency: 2 });
    const key = `cloister:quota:{${limits.tenantId}}:leases`;
    await counters.admit(limits, "inv_dead");
    await counters.admit(limits, "inv_alive");
    // As if its time had passed: nobody waits for 15 s in a test.
    await redis.zadd(key, 1, "inv_dead");
    assert.equal(quotaOf(await counters.admit(limits, "inv_next")), undefined);
    assert.equal(quotaOf(await counters.admit(limits, "inv_more")), "tenant concurrency");
    const ttl = await redis.pttl(key);
    assert.ok(ttl > 10_000 && ttl <= 15_000, String(ttl));
    await redis.del(key);
    await counters.renew(key, ["inv_alive", "inv_next"]);
    assert.equal(quotaOf(await counters.admit(limits, "inv_more")), "tenant concurrency");
  });

  test("what a clock that was set back has left behind locks nobody out", async () => {
    const limits = limitsOf({ requests: { perSecond: 100, burst: 10 }, concurrency: 1 });
    const key = (what: string): string => `cloister:quota:{${limits.tenantId}}:${what}`;
    const year = 365 * 86_400_000;
    const { nowUs } = await counters.admit(limits, "inv_a");
    counters.release(limits, "inv_a");
    const ahead = Buffer.alloc(16);
    ahead.writeDoubleLE(Math.floor(nowUs / 1e6 + year / 1000));
    await redis.set(key("bucket:100:10"), ahead);
    await redis.zadd(key("leases"), nowUs / 1000 + year, "inv_future");
    // The bucket counts as empty, never as worse than that.
    const refused = await counters.admit(limits, "inv_b");
    assert.equal(quotaOf(refused), "tenant requestsPerSecond");
    assert.ok(refused.retryAfterMs <= 10, String(refused.retryAfterMs));
    // A clock that was corrected a little takes no living call's lease away.
    await redis.zadd(key("leases"), nowUs / 1000 + counters.leaseMs + 5000, "inv_alive");
    await counters.renew(key("leases"), ["inv_b"]);
    assert.deepEqual(await redis.zrange(key("leases"), 0, -1), ["inv_b", "inv_alive"]);
  });

  test("leases that no clock of today has made are no calls under way, however many", async () => {
    const limits = limitsOf({ concurrency: 2 });
    const key = `cloister:quota:{${limits.tenantId}}:leases`;
    for (const id of ["a", "b", "c"]) await redis.zadd(key, Date.now() + 86_400_000, id);
    const { refused, tenant } = await counters.admit(limits, "inv_a");
    assert.deepEqual([refused, tenant.concurrency], [undefined, 1]);
    assert.deepEqual(await redis.zrange(key, 0, -1), ["inv_a"]);
  });

  test("a Redis that has forgotten the script is told it again", async () => {
    const limits = limitsOf({ requests: { perSecond: 0.01, burst: 3 } });
    for (let call = 0; call < 3; call++) {
      assert.equal((await counters.admit(limits, "inv_1")).tenant.requests?.left, 2 - call);
      await redis.script("FLUSH");
    }
    assert.equal(quotaOf(await counters.admit(limits, "inv_1")), "tenant requestsPerSecond");
  });

  test("the month is that of Redis's clock, whatever this process believes", async (context) => {
    const limits = limitsOf({ gbSecondsPerMonth: 10 });
    const month = monthOf(Date.now());
    await counters.raiseMonth(limits.tenantId, month, 3);
    for (const off of [-40, 40, 0]) {
      context.mock.timers.enable({ apis: ["Date"], now: Date.now() + off * 86_400_000 });
      const { refused, month: told } = await counters.admit(limits, "inv_1");
      context.mock.timers.reset();
      assert.deepEqual([refused, told], [undefined, { name: month, gbSeconds: 3 }]);
    }
  });

  test("a month is known once it was told, counted up exactly, and never set back", async () => {
    const limits = limitsOf({ gbSecondsPerMonth: 10 });
    const { tenantId } = limits;
    const asked = await counters.admit(limits, "inv_1");
    const month = monthOf(Date.now());
    assert.deepEqual([asked.refused, asked.month?.name], ["month", month]);
    await counters.addGbSeconds(tenantId, month, 4);
    assert.equal((await counters.admit(limits, "inv_1")).refused, "month");
    await counters.raiseMonth(tenantId, month, 1);
    for (let part = 0; part < 1000; part++) void counters.addGbSeconds(tenantId, month, 0.001);
    assert.equal((await counters.admit(limits, "inv_1")).month?.gbSeconds, 2);
    await counters.raiseMonth(tenantId, month, 1.5);
    const unlimited = effectiveQuota("trusted", {});
    assert.equal((await counters.readUse(tenantId, unlimited)).gbSeconds, 2);
    await counters.raiseMonth(tenantId, month, 9.999999999);
    assert.equal(quotaOf(await counters.admit(limits, "inv_1")), undefined);
    await counters.addGbSeconds(tenantId, month, 0.000000001);
    assert.equal(quotaOf(await counters.admit(limits, "inv_1")), "tenant gbSecondsPerMonth");
    assert.equal((await counters.readUse(tenantId, unlimited)).gbSeconds, 10);
  });

  test("the month is that of Redis's clock, in every month of four centuries", async () => {
    const lua = `${monthOfLua} local answer = {} for i = 1, #ARGV do answer[i] = month(tonumber(ARGV[i])) end return answer`;
    const times: number[] = [];
    for (let year = 2000; year < 2400; year++)
      for (let month = 0; month < 12; month++)
        times.push(Date.UTC(year, month, 1) / 1000 - 1, Date.UTC(year, month, 1) / 1000);
    const said = (await redis.eval(lua, 0, ...times)) as string[];
    assert.deepEqual(
      said,
      times.map((seconds) => monthOf(seconds * 1000)),
    );
  });

  test("use is told without using anything", async () => {
    const limits = limitsOf({ requests: { perSecond: 0.01, burst: 20 }, concurrency: 5 });
    const quota = effectiveQuota("trusted", {
      requestsPerSecond: 0.01,
      burst: 20,
      concurrency: 5,
    });
    for (let call = 0; call < 3; call++) await counters.admit(limits, `inv_${call}`);
    for (let look = 0; look < 2; look++) {
      const { burst, concurrency, gbSeconds } = await counters.readUse(limits.tenantId, quota);
      assert.deepEqual(
        { burst, concurrency, gbSeconds },
        { burst: 3, concurrency: 3, gbSeconds: undefined },
      );
    }
  });

  test("of ten thousand tenants Redis keeps nothing once it says nothing", async () => {
    const many = Array.from({ length: 10_000 }, () =>
      limitsOf({ requests: { perSecond: 1000, burst: 1 }, concurrency: 5 }),
    );
    const answers = await Promise.all(many.map((limits) => counters.admit(limits, "inv_1")));
    assert.ok(answers.every(({ refused }) => refused === undefined));
    const leases = async () => {
      const keys = many.map(({ tenantId }) => `cloister:quota:{${tenantId}}:leases`);
      return redis.exists(...keys);
    };
    assert.equal(await leases(), many.length);
    for (const limits of many) counters.release(limits, "inv_1");
    assert.equal(await leases(), 0);
    const rates = many.map(({ tenantId }) => `cloister:quota:{${tenantId}}:bucket:1000:1`);
    while ((await redis.exists(...rates)) > 0);
  });
});

/** quota.lua's own month(), with its time as an argument. */
const monthOfLua = await import("node:fs").then(({ readFileSync }) => {
  const text = readFileSync(new URL("./quota.lua", import.meta.url), "utf8");
  const [found] = /^local function month\(\)$.*?^end$/ms.exec(text) ?? [];
  assert.ok(found, "quota.lua has no month()");
  return found.replace("month()", "month(seconds)");
});
