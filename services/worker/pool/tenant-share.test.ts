import assert from "node:assert/strict";
import { after, afterEach, test } from "node:test";
import type { VersionSpec } from "#contracts/function";
import { FunctionFolders, pythonLauncher } from "../testkit/python-sandboxes.ts";
import { type Entry, FunctionPool, type Lease, type Start } from "./function-pool.ts";
import { SandboxPool } from "./sandbox-pool.ts";
import { givesWay } from "./tenant-share.ts";

const folders = new FunctionFolders();
const pools: SandboxPool[] = [];
afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.close(5000)));
});
after(() => folders.remove());

const HANDLER = "def handler(event, context):\n  return 1\n";

/** Four sandboxes of 256 MiB have room. */
function open(): SandboxPool {
  const pool = new SandboxPool({
    launcher: pythonLauncher(),
    bundles: folders,
    memoryMb: 1024,
    idleMs: 60_000,
    prepared: [],
    demandCells: 0,
  });
  pools.push(pool);
  return pool;
}

let names = 0;
const versionOf = (tenantId: string): VersionSpec => ({
  ...folders.version(`f${names++}`, HANDLER),
  tenantId,
});

/** A call's lease, and whose it is. */
interface Held {
  tenant: string;
  lease: Lease;
}

async function acquire(pool: SandboxPool, spec: VersionSpec): Promise<Held> {
  const got = pool.acquire(spec, "container", 30_000);
  return { tenant: spec.tenantId, lease: "promise" in got ? await got.promise : got };
}

test("a tenant whose calls never cease gives sandboxes up until others hold as much, and no more", async () => {
  const pool = open();
  const flood = versionOf("flood");
  const held = await Promise.all(Array.from({ length: 4 }, () => acquire(pool, flood)));
  const more = Array.from({ length: 12 }, () => acquire(pool, flood));
  const quiet = Array.from({ length: 3 }, () => versionOf("quiet"));
  const wanted = quiet.map((spec) => acquire(pool, spec));
  // Each call that ends makes room for the other tenant, until both hold half.
  held[0]?.lease.release(true);
  const first = await Promise.race(wanted);
  held[1]?.lease.release(true);
  const second = await Promise.race(wanted.filter((_, n) => n > 0));
  assert.deepEqual([first.tenant, second.tenant], ["quiet", "quiet"]);
  // The third of the quiet tenant would be more than its half: the flood's own next call gets the place.
  held[2]?.lease.release(true);
  const next = await Promise.race([...more, wanted[2] as Promise<Held>]);
  assert.equal(next.tenant, "flood");
  assert.equal(next.lease.start, "warm");
  const served = new Set([first, second, next, held[3] as Held]);
  const rest = [...more, ...wanted];
  for (const one of served) one.lease.release(true);
  // Everybody is served in the end.
  await Promise.all(
    rest.map(async (promise) => {
      const one = await promise;
      if (!served.has(one)) one.lease.release(true);
    }),
  );
});

test("where one sandbox is all there is room for, tenants take turns", () => {
  const spec = versionOf("a");
  const owner = new FunctionPool("a", spec, "container");
  const other = new FunctionPool("b", versionOf("b"), "container");
  const entry = { owner, retired: false } as unknown as Entry;
  owner.entries.add(entry);
  const start: Start = { owner: other, attempts: 0 };
  other.waiters.add({
    mayQueue: false,
    resolve() {},
    reject() {},
    sinceMs: 1000,
    timer: setTimeout(() => {}, 0),
  });
  const functions = () => [owner, other];
  assert.equal(givesWay(entry, start, functions, 255, 1100), false, "it has not waited for long");
  assert.equal(givesWay(entry, start, functions, 255, 1300), true);
  assert.equal(givesWay(entry, start, functions, 256, 1300), false, "there is memory");
  const own: Start = { owner, attempts: 0 };
  assert.equal(givesWay(entry, own, functions, 255, 1300), false, "nobody else waits");
});
