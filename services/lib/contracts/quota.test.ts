import assert from "node:assert/strict";
import { test } from "node:test";
import { functionConfigSchema } from "./function.ts";
import {
  beyondTenant,
  effectiveFunctionQuota,
  effectiveQuota,
  FUNCTION_QUOTA_FIELDS,
  functionQuotaSchema,
  invocationLimits,
  monthOf,
  PLANS,
  QUOTA_FIELDS,
  quotaSchema,
  tenantQuotaSchema,
} from "./quota.ts";

const ids = { tenantId: "ten_1", functionId: "fn_1" };
const config = functionConfigSchema.parse({ name: "fn" });

test("every plan is a whole quota that a default function fits into", () => {
  for (const [tier, plan] of Object.entries(PLANS)) {
    assert.deepEqual(quotaSchema.parse(plan), plan);
    assert.deepEqual(effectiveQuota(tier as keyof typeof PLANS, {}), plan);
    assert.equal(invocationLimits(ids, plan, {}, config)?.beyond, undefined);
  }
});

test("a trusted tenant is limited in nothing, so its calls carry no limits", () => {
  for (const field of QUOTA_FIELDS) assert.equal(PLANS.trusted[field], null, field);
  assert.equal(invocationLimits(ids, effectiveQuota("trusted", {}), {}, config), undefined);
  // What is checked at the deploy alone costs no call anything either.
  const quota = effectiveQuota("trusted", { functions: 3, bundleBytes: 9, memoryMb: 4096 });
  assert.equal(invocationLimits(ids, quota, {}, config), undefined);
});

test("a burst is its rate's: one second's worth unless it was set with it", () => {
  const burst = (own: object) => effectiveQuota("standard", tenantQuotaSchema.parse(own)).burst;
  assert.equal(burst({}), PLANS.standard.burst);
  assert.equal(burst({ requestsPerSecond: 2.5 }), 3);
  assert.equal(burst({ requestsPerSecond: 0.2 }), 1);
  assert.equal(burst({ requestsPerSecond: 10, burst: null }), 10);
  assert.equal(burst({ requestsPerSecond: 10, burst: 2 }), 2);
  assert.equal(burst({ burst: 7 }), 7);
  assert.equal(burst({ requestsPerSecond: null, burst: 7 }), null);
});

test("of a minimum and paths that contradict each other the stronger holds", () => {
  assert.equal(
    tenantQuotaSchema.safeParse({ minimumIsolation: "microvm", paths: ["container"] }).success,
    false,
  );
  const quota = effectiveQuota("untrusted", tenantQuotaSchema.parse({ paths: ["container"] }));
  assert.deepEqual([quota.minimumIsolation, quota.paths], ["microvm", ["microvm"]]);
});

test("a function never has more than its tenant, whatever was set for either and when", () => {
  const values = [undefined, null, 64, 100, 900] as const;
  for (const theirs of values)
    for (const mine of values)
      for (const field of FUNCTION_QUOTA_FIELDS) {
        const tenant = effectiveQuota("trusted", {
          requestsPerSecond: field === "burst" ? 1 : null,
          ...(theirs === undefined ? {} : { [field]: theirs }),
        });
        const own = functionQuotaSchema.parse({
          ...(field === "burst" && mine != null ? { requestsPerSecond: 1 } : {}),
          ...(mine === undefined ? {} : { [field]: mine }),
        });
        const most = tenant[field];
        const effective = effectiveFunctionQuota(tenant, own)[field];
        if (most !== null) assert.ok(effective !== null && effective <= most, field);
        else assert.equal(effective, mine ?? null, field);
        if (typeof mine === "number" && most !== null && mine <= most)
          assert.equal(effective, mine);
        assert.equal(
          beyondTenant(tenant, own).includes(field),
          typeof mine === "number" && most !== null && mine > most,
        );
      }
});

test("a version that asks for more than is allowed may not be called", () => {
  const beyond = (tenant: object, own: object, change: object) =>
    invocationLimits(
      ids,
      effectiveQuota("trusted", tenantQuotaSchema.parse(tenant)),
      functionQuotaSchema.parse(own),
      { ...config, ...change },
    )?.beyond;
  assert.deepEqual(beyond({ memoryMb: 128 }, {}, {}), {
    quota: "memoryMb",
    of: "tenant",
    limit: 128,
  });
  assert.deepEqual(beyond({}, { timeoutMs: 5 }, {}), {
    quota: "timeoutMs",
    of: "function",
    limit: 5,
  });
  assert.equal(beyond({ memoryMb: 256, timeoutMs: 10_000 }, { memoryMb: 256 }, {}), undefined);
  const paths = { paths: ["container"] };
  assert.equal(beyond(paths, {}, { isolation: "microvm" })?.quota, "paths");
  assert.equal(beyond(paths, {}, { isolation: "container" }), undefined);
});

test("a month begins at midnight UTC", () => {
  assert.equal(monthOf(Date.UTC(2026, 10, 30, 23, 59, 59, 999)), "2026-11");
  assert.equal(monthOf(Date.UTC(2026, 11, 1)), "2026-12");
});
