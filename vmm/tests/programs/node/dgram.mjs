// UDP over loopback, both families, and the names of this machine.
import dgram from "node:dgram";
import dns from "node:dns";
import { once } from "node:events";

for (const [type, host] of [
  ["udp4", "127.0.0.1"],
  ["udp6", "::1"],
]) {
  const server = dgram.createSocket(type);
  server.on("message", (message, from) =>
    server.send(message.toString().toUpperCase(), from.port, from.address),
  );
  server.bind(0, host);
  await once(server, "listening");
  const client = dgram.createSocket(type);
  client.connect(server.address().port, host);
  await once(client, "connect");
  for (const text of ["one", "", "three".repeat(2000)]) {
    client.send(text);
    const [answer, from] = await once(client, "message");
    console.log(type, answer.length, answer.toString().slice(0, 5), from.family, from.address);
  }
  const tooLarge = await new Promise((resolve) => client.send(Buffer.alloc(70_000), resolve));
  console.log(type, "too large", tooLarge?.code);
  client.close();
  server.close();
}
const closed = dgram.createSocket("udp4");
closed.connect(1, "127.0.0.1");
await once(closed, "connect");
closed.send("x");
const [refused] = await once(closed, "error").catch((error) => [error]);
console.log("refused", refused.code);
closed.close();

console.log("localhost", await dns.promises.lookup("localhost", { family: 4 }));
console.log(
  "all",
  (await dns.promises.lookup("localhost", { all: true })).map((one) => one.address).sort(),
);
console.log("number", await dns.promises.lookup("127.0.0.1"));
console.log(
  "service",
  await dns.promises.lookupService("127.0.0.1", 22).then(
    (one) => one.hostname,
    (e) => e.code,
  ),
);
