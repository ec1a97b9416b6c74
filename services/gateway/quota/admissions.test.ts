import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { InvocationLimits } from "#contracts/quota";
import { CloisterError } from "#errors/catalogue";
import { QuotaCounters } from "#queue/quota-counters";
import { connectRedis, disconnectRedis, type Redis } from "#queue/redis";
import { type RedisServer, startRedisServer } from "#testkit/redis-server";
import { Admissions } from "./admissions.ts";
import { quotaOf } from "./quota-error.ts";

let server: RedisServer;
let redis: Redis;
before(async () => {
  server = await startRedisServer();
  redis = connectRedis(server.url, "request");
});
after(async () => {
  await disconnectRedis(redis);
  await server.stop();
});

let made = 0;
const limitsOf = (tenant: InvocationLimits["tenant"]): InvocationLimits => ({
  tenantId: `ten_${made++}`,
  functionId: "fn_1",
  tenant,
  function: {},
});

/** Admissions at the real counters, and how often those were asked. */
function counted() {
  const counters = new QuotaCounters(redis);
  const asked = { times: 0, retryAfterMs: 0 };
  const admissions = new Admissions({
    counters: {
      leaseMs: counters.leaseMs,
      async admit(limits, id) {
        asked.times++;
        const answer = await counters.admit(limits, id);
        asked.retryAfterMs = answer.retryAfterMs;
        return answer;
      },
      release: (limits, id) => counters.release(limits, id),
      renew: (key, ids) => counters.renew(key, ids),
      raiseMonth: (...args) => counters.raiseMonth(...args),
    },
    readMonthTotal: async () => 10,
    onProblem: assert.ifError,
  });
  return { admissions, asked };
}

const refusalOf = async (admitted: Promise<unknown>) => {
  try {
    await admitted;
  } catch (error) {
    assert.ok(error instanceof CloisterError, String(error));
    return quotaOf(error);
  }
  return undefined;
};

test("a flood over its rate hardly asks the counters, and is told the same", async () => {
  const { admissions, asked } = counted();
  const limits = limitsOf({ requests: { perSecond: 0.01, burst: 3 } });
  for (let call = 0; call < 3; call++) await admissions.admit(limits, "inv_1");
  for (let call = 0; call < 1000; call++) {
    const refusal = await refusalOf(admissions.admit(limits, "inv_1"));
    assert.equal(refusal?.quota, "requestsPerSecond");
    assert.ok(refusal.retryAfterS > 0 && refusal.retryAfterS <= 100);
    assert.match(refusal.headers.limit, /^"requestsPerSecond";r=0;t=\d+$/);
  }
  assert.ok(asked.times < 300, `asked ${asked.times} times`);
  // Whoever has other limits now is not refused by what the former ones had used up.
  const raised = { ...limits, tenant: { requests: { perSecond: 1000, burst: 500 } } };
  await admissions.admit(raised, "inv_1");
  admissions.close();
});

test("nobody is refused from memory once the counters would let a call in", async () => {
  const { admissions, asked } = counted();
  const limits = limitsOf({ requests: { perSecond: 100, burst: 1 } });
  let dueMs = 0;
  let fromMemory = 0;
  for (let admitted = 0; admitted < 40; ) {
    const { times } = asked;
    const beganMs = performance.now();
    const refusal = await refusalOf(admissions.admit(limits, "inv_1"));
    if (!refusal) admitted++;
    else if (asked.times > times) dueMs = performance.now() + asked.retryAfterMs;
    else {
      fromMemory++;
      assert.ok(beganMs <= dueMs, `refused ${beganMs - dueMs} ms too late`);
    }
  }
  assert.ok(fromMemory > 0);
  admissions.close();
});

test("a used up month is not asked for by every call", async () => {
  const { admissions, asked } = counted();
  const limits = limitsOf({ gbSecondsPerMonth: 10 });
  for (let call = 0; call < 500; call++)
    assert.equal((await refusalOf(admissions.admit(limits, "inv_1")))?.quota, "gbSecondsPerMonth");
  assert.ok(asked.times < 100, `asked ${asked.times} times`);
  admissions.close();
});

test("calls at once are asked for each time: any of them may have ended", async () => {
  const { admissions, asked } = counted();
  const limits = limitsOf({ concurrency: 1 });
  const first = await admissions.admit(limits, "inv_1");
  for (let call = 0; call < 5; call++)
    assert.equal((await refusalOf(admissions.admit(limits, "inv_2")))?.quota, "concurrency");
  assert.equal(asked.times, 6);
  first.release();
  (await admissions.admit(limits, "inv_2")).release();
  admissions.close();
});
