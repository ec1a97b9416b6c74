import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { openDatabase } from "#db/database";
import { childEnd } from "#embedded/process-life";
import { connectRedis, disconnectRedis } from "#queue/redis";
import { type Folders, foldersOf } from "./folders.ts";
import {
  embeddedDatabaseUrl,
  embeddedRedisUrl,
  makeFolders,
  postgresService,
  redisService,
} from "./services.ts";

/** Many times what the path of a socket may hold. */
const LONG = Array.from({ length: 6 }, (_, n) => `${n}`.repeat(200)).join("/");

let top: string;
let folders: Folders;
before(() => {
  top = mkdtempSync(join(tmpdir(), "cloister-sockets-"));
  folders = foldersOf(join(top, LONG));
  makeFolders(folders);
});
after(() => {
  rmSync(folders.run, { recursive: true, force: true });
  rmSync(top, { recursive: true, force: true });
});

const hooks = { onLine: () => {}, onSpawn: () => {} };

test("below a data folder with a very long path both servers serve, and again where kill -9 has left their sockets", async () => {
  const sockets = [join(folders.run, "redis.sock"), join(folders.run, "postgres/.s.PGSQL.5432")];
  for (let start = 1; start <= 2; start++) {
    const postgres = await postgresService(folders).start(hooks);
    const redis = await redisService(folders).start(hooks);
    const database = openDatabase(embeddedDatabaseUrl(folders));
    const { rows } = await database.pool.query("select 1 as one");
    assert.deepEqual(rows, [{ one: 1 }]);
    await database.close();
    const client = connectRedis(embeddedRedisUrl(folders), "request");
    assert.equal(await client.incr("starts"), start);
    for (const socket of sockets) assert.ok(statSync(socket).isSocket());
    await disconnectRedis(client);
    if (start === 1) {
      for (const { child } of [redis, postgres]) {
        child.kill("SIGKILL");
        await childEnd(child);
      }
      for (const socket of sockets) assert.ok(statSync(socket).isSocket(), "was left behind");
    } else for (const one of [redis, postgres]) await one.stop();
  }
});

test("nobody but root and the services' accounts gets to the sockets", () => {
  for (const folder of [folders.run, join(folders.run, "postgres")])
    assert.equal(statSync(folder).mode & 0o007, 0, folder);
});
