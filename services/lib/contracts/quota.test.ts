import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { functionConfigSchema, type Path } from "./function.ts";
import type { Tier } from "./placement.ts";
import {
  beyondTenant,
  effectiveFunctionQuota,
  effectiveQuota,
  FUNCTION_QUOTA_FIELDS,
  type FunctionQuota,
  functionQuotaSchema,
  invocationLimits,
  monthOf,
  PLANS,
  policyOf,
  QUOTA_FIELDS,
  quotaSchema,
  type TenantQuota,
  tenantQuotaSchema,
} from "./quota.ts";

const limitsOf = (tier: Tier, own: TenantQuota, change: object = {}, mine: FunctionQuota = {}) => {
  const quota = effectiveQuota(tier, own);
  const config = functionConfigSchema.parse({ name: "fn", ...change });
  const version = { tenantId: "ten_1", functionId: "fn_1", config };
  return invocationLimits(version, { policy: policyOf(tier, quota), quota, own: mine });
};

test("every plan is a whole quota that a default function fits into", () => {
  for (const [tier, plan] of Object.entries(PLANS)) {
    assert.deepEqual(quotaSchema.parse(plan), plan);
    assert.deepEqual(effectiveQuota(tier as Tier, {}), plan);
    assert.equal(limitsOf(tier as Tier, {})?.beyond, undefined);
  }
});

test("a trusted tenant is limited in nothing, so its calls carry no limits", () => {
  for (const field of QUOTA_FIELDS) assert.equal(PLANS.trusted[field], null, field);
  assert.equal(limitsOf("trusted", {}), undefined);
  // What is checked at the deploy alone costs no call anything either.
  const own = { functions: 3, bundleBytes: 9, memoryMb: 4096, paths: ["container" as const] };
  assert.equal(limitsOf("trusted", own), undefined);
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
  const beyond = (...args: Parameters<typeof limitsOf>) => limitsOf(...args)?.beyond;
  const memory = { quota: "memoryMb", of: "tenant", limit: 128 };
  assert.deepEqual(beyond("trusted", { memoryMb: 128 }), memory);
  const time = { quota: "timeoutMs", of: "function", limit: 5 };
  assert.deepEqual(beyond("trusted", {}, {}, { timeoutMs: 5 }), time);
  const enough = { memoryMb: 256, timeoutMs: 10_000 };
  assert.equal(beyond("trusted", enough, {}, enough), undefined);
});

test("a function that needs a path which its tenant may not use may not be called", () => {
  const beyond = (tier: Tier, isolation: string, paths: Path[]) =>
    limitsOf(tier, { paths, minimumIsolation: null }, { isolation })?.beyond?.quota;
  assert.equal(beyond("trusted", "microvm", ["container"]), "paths");
  assert.equal(beyond("standard", "auto", ["container"]), "paths");
  assert.equal(beyond("standard", "container", ["container"]), undefined);
  assert.equal(beyond("trusted", "auto", ["container"]), undefined);
  // Stronger than it asks for is no refusal.
  assert.equal(beyond("trusted", "container", ["microvm"]), undefined);
});

test("a month begins at midnight UTC", () => {
  assert.equal(monthOf(Date.UTC(2026, 10, 30, 23, 59, 59, 999)), "2026-11");
  assert.equal(monthOf(Date.UTC(2026, 11, 1)), "2026-12");
});

test("docs/quotas.md tells the plans as they are", () => {
  const text = readFileSync(new URL("../../../docs/quotas.md", import.meta.url), "utf8");
  const section = /^## Plans$(.*?)^## /ms.exec(text)?.[1] ?? "";
  const said = [...section.matchAll(/^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$/gm)].map((row) =>
    row.slice(1),
  );
  const tiers: Tier[] = ["trusted", "standard", "untrusted"];
  assert.deepEqual(
    said,
    QUOTA_FIELDS.map((field) => [field, ...tiers.map((tier) => String(PLANS[tier][field]))]),
  );
});
