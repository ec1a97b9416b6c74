// Types are stripped as the program is loaded.

import { once } from "node:events";
import { createServer, type Server } from "node:http";

interface Answer<T> {
  readonly value: T;
  readonly at?: Date;
}
type Shape = { kind: "circle"; radius: number } | { kind: "square"; side: number };
const area = (shape: Shape): number =>
  shape.kind === "circle" ? Math.PI * shape.radius ** 2 : shape.side ** 2;
class Box<T extends object> {
  readonly #inner: T;
  constructor(inner: T) {
    this.#inner = inner;
  }
  get inner(): Answer<T> {
    return { value: this.#inner } satisfies Answer<T>;
  }
}
const shapes = [
  { kind: "circle", radius: 1 },
  { kind: "square", side: 3 },
] as const satisfies Shape[];
console.log(shapes.map(area), new Box({ a: 1 }).inner);
const server: Server = createServer((_, response) => void response.end("typed")).listen(0);
await once(server, "listening");
const address = server.address();
if (typeof address === "object" && address !== null) {
  const answer = await fetch(`http://localhost:${address.port}`);
  console.log((await answer.text()) as string);
}
server.close();
