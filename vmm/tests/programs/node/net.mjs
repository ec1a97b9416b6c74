// TCP and Unix sockets: echo, half-open ends, many connections, errors by name.
import { once } from "node:events";
import { existsSync } from "node:fs";
import net from "node:net";

const server = net.createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));

async function echoes(name, options) {
  server.listen(options);
  await once(server, "listening");
  const address = server.address();
  const target =
    typeof address === "string" ? { path: address } : { port: address.port, host: address.address };
  const sums = await Promise.all(
    Array.from({ length: 30 }, async (_, i) => {
      const client = net.connect({ ...target, allowHalfOpen: true });
      client.end(Buffer.alloc(10_000 * (i + 1), i));
      let total = 0;
      for await (const chunk of client) for (const byte of chunk) total += byte;
      return total;
    }),
  );
  console.log(
    name,
    typeof address === "string" ? address : address.family,
    sums.reduce((a, b) => a + b, 0),
  );
  server.close();
  await once(server, "close");
}
await echoes("ipv4", { port: 0, host: "127.0.0.1" });
await echoes("ipv6", { port: 0, host: "::1" });
await echoes("unix", { path: "/tmp/echo.sock" });
console.log("name removed", !existsSync("/tmp/echo.sock"));
await echoes("abstract", { path: "\0programs-net" });

for (const options of [{ port: 1, host: "127.0.0.1" }, { path: "/tmp/none.sock" }]) {
  const [error] = await once(net.connect(options), "error").catch((error) => [error]);
  console.log("connect", options.path ?? options.port, error.code);
}
const first = net.createServer().listen(0, "127.0.0.1");
await once(first, "listening");
const second = net.createServer();
second.on("error", (error) => {
  console.log("listen again", error.code);
  first.close();
});
second.listen(first.address().port, "127.0.0.1");
await once(first, "close");

// An end that is reset shows as an error on the other.
const resetting = net.createServer((socket) => socket.resetAndDestroy()).listen(0, "127.0.0.1");
await once(resetting, "listening");
const victim = net.connect(resetting.address().port, "127.0.0.1");
victim.resume();
console.log(
  "reset",
  await once(victim, "error")
    .catch((e) => [e])
    .then(([e]) => e.code),
);
resetting.close();

// Back pressure: a reader that does not read stops the writer.
const slow = net.createServer({ pauseOnConnect: true }).listen("/tmp/slow.sock");
await once(slow, "listening");
const accepted = once(slow, "connection");
const writer = net.connect("/tmp/slow.sock");
const [reader] = await accepted;
let wrote = 0;
while (writer.write(Buffer.alloc(65536)) || wrote < 100) wrote++;
writer.end();
let seen = 0;
reader.on("data", (chunk) => {
  seen += chunk.length;
});
reader.resume();
await once(reader, "end");
console.log("back pressure", seen === (wrote + 1) * 65536);
reader.destroy();
slow.close();
