// A server and its own client over loopback: fetch, streams, keep-alive, refusals, large bodies.
import { once } from "node:events";
import http from "node:http";

const server = http.createServer(async (request, response) => {
  if (request.url === "/echo") {
    response.writeHead(200, { "content-type": request.headers["content-type"] ?? "none" });
    for await (const chunk of request) response.write(chunk);
    response.end();
  } else if (request.url === "/large") {
    response.end(Buffer.alloc(5_000_000, "x"));
  } else if (request.url === "/abort") {
    response.write("some");
    setImmediate(() => response.destroy());
  } else {
    response.writeHead(404, "nothing there", { "x-path": request.url });
    response.end();
  }
});
server.listen(0, "127.0.0.1");
await once(server, "listening");
const base = `http://127.0.0.1:${server.address().port}`;

const echo = await fetch(`${base}/echo`, { method: "POST", body: JSON.stringify({ a: [1, "é"] }) });
console.log("echo", echo.status, echo.headers.get("content-type"), await echo.json());

const upload = await fetch(`${base}/echo`, { method: "PUT", body: Buffer.alloc(3_000_000, "abc") });
console.log("upload", (await upload.arrayBuffer()).byteLength);

let length = 0;
for await (const chunk of (await fetch(`${base}/large`)).body) length += chunk.length;
console.log("large", length);

const missing = await fetch(`${base}/missing?q=1`);
console.log("missing", missing.status, missing.statusText, missing.headers.get("x-path"));

const aborted = await fetch(`${base}/abort`);
console.log("aborted", await aborted.text().catch((error) => error.name));

const many = await Promise.all(
  Array.from({ length: 100 }, async (_, i) => {
    const answer = await fetch(`${base}/echo`, { method: "POST", body: String(i) });
    return Number(await answer.text());
  }),
);
console.log(
  "many",
  many.reduce((sum, one) => sum + one, 0),
);

const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const ports = new Set();
for (let i = 0; i < 5; i++) {
  const request = http.get(`${base}/x`, { agent });
  const [answer] = await once(request, "response");
  ports.add(request.socket.localPort);
  answer.resume();
  await once(answer, "end");
}
console.log("connections kept alive", ports.size);
agent.destroy();

const controller = new AbortController();
const cancelled = fetch(`${base}/large`, { signal: controller.signal });
controller.abort();
console.log("cancelled", await cancelled.catch((error) => error.name));

server.close();
server.closeAllConnections();
await once(server, "close");
const refused = http.get(`${base}/x`, { agent: false });
console.log("refused", (await once(refused, "error").catch((error) => [error]))[0].code);
