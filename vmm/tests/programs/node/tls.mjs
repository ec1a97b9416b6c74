// TLS and HTTP/2 over loopback, with a certificate of its own.
import { once } from "node:events";
import http2 from "node:http2";
import https from "node:https";
import tls from "node:tls";
import { cert, key } from "./certificate.mjs";

const server = https.createServer({ key, cert }, (request, response) =>
  response.end(`secure ${request.socket.getProtocol()}`),
);
server.listen(0, "127.0.0.1");
await once(server, "listening");
const { port } = server.address();
const request = https.get({ port, host: "127.0.0.1", servername: "localhost", ca: cert });
const [answer] = await once(request, "response");
console.log(answer.socket.authorized, answer.socket.getCipher().name);
let text = "";
for await (const chunk of answer) text += chunk;
console.log(text);
const distrusted = https.get({ port, host: "127.0.0.1", servername: "localhost" });
console.log((await once(distrusted, "error").catch((error) => [error]))[0].code);
const old = tls.connect({
  port,
  host: "127.0.0.1",
  ca: cert,
  servername: "localhost",
  maxVersion: "TLSv1.2",
});
await once(old, "secureConnect");
console.log(old.getProtocol(), old.getPeerCertificate().subject.CN, old.alpnProtocol);
old.destroy();
server.close();
server.closeAllConnections();

const second = http2.createSecureServer({ key, cert });
second.on("stream", (stream, headers) => {
  stream.respond({ ":status": 200, "x-path": headers[":path"] });
  stream.end("x".repeat(300_000));
});
second.listen(0, "127.0.0.1");
await once(second, "listening");
const session = http2.connect(`https://127.0.0.1:${second.address().port}`, {
  ca: cert,
  servername: "localhost",
});
const sizes = await Promise.all(
  Array.from({ length: 10 }, async (_, i) => {
    const stream = session.request({ ":path": `/${i}` });
    const [headers] = await once(stream, "response");
    let size = 0;
    for await (const chunk of stream) size += chunk.length;
    return `${headers["x-path"]} ${size}`;
  }),
);
console.log(sizes);
session.close();
second.close();
