import assert from "node:assert/strict";
import { once } from "node:events";
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Redis } from "ioredis";
import pg from "pg";
import { startPostgres } from "./postgres.ts";
import { childEnd, startTimeOf } from "./process-life.ts";
import { startRedis } from "./redis.ts";
import { account, spawnAs } from "./unprivileged.ts";

let folder: string;
before(() => {
  // Closed to the servers' users on purpose, as /root is.
  folder = mkdtempSync(join(tmpdir(), "cloister-embedded-"));
});
after(() => rmSync(folder, { recursive: true, force: true }));

const postgresOptions = (name: string) => ({
  dataDirectory: join(folder, name),
  // The folder's name differs per test; sockets live where the server's user may enter.
  socketDirectory: join(folder, `${name}-socket`),
  user: "cloister-db",
});

async function query(url: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

test("PostgreSQL keeps what was committed over kill -9, and a second start stops the first server", async () => {
  const options = postgresOptions("pg");
  const first = await startPostgres(options);
  await query(first.url, "create table kept (n int)");
  await query(first.url, "insert into kept values (1)");
  first.child.kill("SIGKILL");
  await childEnd(first.child);
  assert.ok(
    existsSync(join(options.dataDirectory, "postmaster.pid")),
    "the crash left its pid file",
  );

  const second = await startPostgres(options);
  assert.deepEqual(await query(second.url, "select n from kept"), [{ n: 1 }]);
  await query(second.url, "insert into kept values (2)");

  // The second is left running as a former run would leave it.
  const third = await startPostgres(options);
  assert.equal(startTimeOf(second.child.pid ?? 0), undefined, "one server per folder");
  assert.deepEqual(await query(third.url, "select n from kept order by n"), [{ n: 1 }, { n: 2 }]);
  await third.stop();
  assert.ok(
    !existsSync(join(options.dataDirectory, "postmaster.pid")),
    "a clean stop leaves no pid file",
  );
});

test("a pid file that names somebody else's process is no obstacle and harms nobody", async () => {
  const options = postgresOptions("pg-stale");
  const first = await startPostgres(options);
  await first.stop();
  const bystander = spawnAs({ user: "cloister-db", argv: ["sleep", "60"], pdeathsig: "KILL" });
  writeFileSync(join(options.dataDirectory, "postmaster.pid"), `${bystander.pid}\n`);
  const second = await startPostgres(options);
  assert.deepEqual(await query(second.url, "select 1 as one"), [{ one: 1 }]);
  assert.equal(bystander.exitCode, null);
  assert.equal(bystander.signalCode, null);
  await second.stop();
  bystander.kill("SIGKILL");
  await childEnd(bystander);
});

test("only the accounts that are meant may connect to PostgreSQL", async () => {
  const server = await startPostgres(postgresOptions("pg-peer"));
  const client = new pg.Client({
    host: join(folder, "pg-peer-socket"),
    user: "nobody",
    database: "cloister",
  });
  await assert.rejects(client.connect(), /peer authentication failed/i);
  assert.equal(statSync(join(folder, "pg-peer-socket")).mode & 0o007, 0);
  await server.stop();
});

test("Redis keeps its data over kill -9", async () => {
  const socketFolder = join(folder, "redis-socket");
  mkdirSync(socketFolder);
  const options = {
    dataDirectory: join(folder, "redis"),
    socketPath: join(socketFolder, "redis.sock"),
    user: "cloister",
  };
  const { uid, gid } = account("cloister");
  chownSync(socketFolder, uid, gid);
  const first = await startRedis(options);
  const redis = new Redis({ path: options.socketPath, retryStrategy: () => null });
  redis.on("error", () => {});
  await redis.set("kept", "yes");
  const gone = once(redis, "close");
  first.child.kill("SIGKILL");
  await childEnd(first.child);
  await gone;
  const second = await startRedis(options);
  const again = new Redis({ path: options.socketPath });
  assert.equal(await again.get("kept"), "yes");
  again.disconnect();
  await second.stop();
});

test("a start that fails says what the server said", async () => {
  const socketFolder = join(folder, "bad-redis-socket");
  mkdirSync(socketFolder);
  const dataDirectory = join(folder, "bad-redis");
  mkdirSync(dataDirectory);
  // A file where Redis needs its folder.
  writeFileSync(join(dataDirectory, "appendonlydir"), "");
  await assert.rejects(
    startRedis({ dataDirectory, socketPath: join(socketFolder, "redis.sock"), user: "cloister" }),
    /redis-server ended with 1 before it was ready/,
  );
});

test("an unprivileged process has its user, no capability, its mounts, and ends with its parent's signal", async () => {
  const child = spawnAs({
    user: "cloister",
    argv: [
      "sh",
      "-c",
      "id -un; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; test -r /run/cloister/ns/app/package.json && echo readable",
    ],
  });
  let output = "";
  child.stdout?.setEncoding("utf8").on("data", (text) => {
    output += text;
  });
  await once(child, "close");
  assert.match(output, /^cloister\n/);
  assert.match(output, /CapEff:\s+0000000000000000/);
  assert.match(output, /CapBnd:\s+0000000000000000/);
  assert.match(output, /NoNewPrivs:\s+1/);
  assert.match(output, /readable/);
  assert.ok(!readFileSync("/proc/mounts", "utf8").includes("/run/cloister/ns"), "no mount is left");
});
