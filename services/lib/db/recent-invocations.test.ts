import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import { functionConfigSchema } from "#contracts/function";
import { newId } from "#contracts/ids";
import type { InvocationRecord } from "#contracts/invocation";
import { type PostgresServer, startPostgresServer } from "#testkit/postgres-server";
import { type Database, openDatabase } from "./database.ts";
import { deleteFunction, functionName, publishVersion } from "./functions.ts";
import { insertInvocations } from "./invocations.ts";
import { runMigrations } from "./migrations.ts";
import { recentInvocations } from "./recent-invocations.ts";
import { ensureTenant, listTenants, tenantNames } from "./tenants.ts";

let server: PostgresServer;
let db: Database;

before(async () => {
  server = await startPostgresServer();
  await runMigrations(server.url);
  db = openDatabase(server.url);
});
after(async () => {
  await db?.close();
  await server?.stop();
});

async function publish(tenantId: string, name: string) {
  const content = Buffer.from(name);
  const digest = createHash("sha256").update(content).digest("hex");
  const config = functionConfigSchema.parse({ name });
  return publishVersion(db, tenantId, config, { digest, content, unpackedBytes: 10 });
}

const NOW = Date.now();

/** One call, `ago` ms ago. */
const record = (
  tenantId: string,
  { id: functionId, versionId }: { id: string; versionId: string },
  ago: number,
): InvocationRecord => ({
  ...{ id: newId("inv"), tenantId, functionId, versionId, nodeId: "node_1", status: "ok" },
  ...{ acceptedAtMs: NOW - ago, finishedAtMs: NOW - ago + 5, path: "microvm", start: "restored" },
  ...{ placementReasons: [], phases: { acquire_ms: 4 }, durationMs: 5, billedMs: 5 },
  ...{ memoryMb: 64, requestBytes: 0, responseBytes: 0, httpStatus: 200 },
});

test("calls are listed newest first, of all, of a tenant and of a function, page by page", async () => {
  const [one, two] = [
    await ensureTenant(db, "one", "trusted"),
    await ensureTenant(db, "two", "standard"),
  ];
  const a = await publish(one.id, "a");
  const b = await publish(one.id, "b");
  const foreign = await publish(two.id, "a");
  await insertInvocations(db, [
    record(one.id, a, 5000),
    record(one.id, b, 4000),
    record(two.id, foreign, 3000),
    record(one.id, a, 2000),
    record(one.id, a, 8 * 86_400_000),
  ]);
  const ago = async (query: Omit<Parameters<typeof recentInvocations>[1], "limit">, limit = 10) =>
    (await recentInvocations(db, { limit, ...query })).map((found) => [
      found.function,
      NOW - found.acceptedAt.getTime(),
    ]);
  const own = [
    ["a", 2000],
    ["b", 4000],
    ["a", 5000],
  ];
  assert.deepEqual(await ago({ tenantId: one.id }), own);
  assert.deepEqual(await ago({ tenantId: one.id }, 2), own.slice(0, 2));
  assert.deepEqual(await ago({ tenantId: one.id, beforeMs: NOW - 4000 }), own.slice(2));
  assert.deepEqual(await ago({ tenantId: one.id, functionId: b.id }), [["b", 4000]]);
  assert.deepEqual(await ago({ tenantId: one.id, functionId: foreign.id }), []);
  assert.deepEqual(await ago({ tenantId: two.id }), [["a", 3000]]);
  assert.equal((await ago({})).length, 4);
  const [call] = await recentInvocations(db, { limit: 1, tenantId: two.id });
  assert.deepEqual(
    [call?.path, call?.start, call?.phases, call?.httpStatus, call?.errorCode],
    ["microvm", "restored", { acquire_ms: 4 }, 200, undefined],
  );
  // Calls of what was deleted are still told.
  await deleteFunction(db, one.id, "b");
  assert.deepEqual(await ago({ tenantId: one.id }), own);
  assert.equal(await functionName(db, b.id), "b");
  assert.equal(await functionName(db, "fn_none"), undefined);
});

test("tenants are found by a part of their name, in which no letter stands for another", async () => {
  for (const name of ["Blue_Whale", "bluefin", "black-whale", "100.percent"])
    await ensureTenant(db, name, "standard");
  const found = async (search: string) =>
    (await listTenants(db, { limit: 10, search })).map(({ name }) => name).sort();
  assert.deepEqual(await found("BLUE"), ["Blue_Whale", "bluefin"]);
  assert.deepEqual(await found("_"), ["Blue_Whale"]);
  assert.deepEqual(await found("k-w"), ["black-whale"]);
  for (const search of ["%", "\\", "\0", "' or 1=1", "blue fin"])
    assert.deepEqual(await found(search), []);
  const [tenant] = await listTenants(db, { limit: 1, search: "bluefin" });
  const id = String(tenant?.id);
  assert.deepEqual([...(await tenantNames(db, [id, "ten_none"]))], [[id, "bluefin"]]);
});
