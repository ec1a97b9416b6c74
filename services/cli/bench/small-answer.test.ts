import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { Pool } from "undici";
import { smallAnswer } from "./small-answer.ts";

async function asked(serve: RequestListener) {
  const server = createServer(serve).listen(0, "127.0.0.1");
  await once(server, "listening");
  const pool = new Pool(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  try {
    return await smallAnswer(pool, { path: "/x?y=1", method: "GET", headers: { name: "value" } });
  } finally {
    await pool.destroy();
    server.close();
  }
}

test("status, headers and a text that comes in pieces", async () => {
  const euro = Buffer.from("€");
  const answer = await asked((request, response) => {
    assert.deepEqual([request.url, request.headers.name], ["/x?y=1", "value"]);
    response.writeHead(201, { "cloister-start": "warm" });
    response.write(euro.subarray(0, 1));
    setImmediate(() => response.end(euro.subarray(1)));
  });
  assert.deepEqual([answer.status, answer.text], [201, "€"]);
  assert.equal(answer.headers["cloister-start"], "warm");
});

test("an answer that is cut off is an error", async () => {
  const answer = asked((_request, response) => {
    response.writeHead(200, { "content-length": 10 });
    response.write("part");
    setImmediate(() => response.destroy());
  });
  await assert.rejects(answer);
});
