import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

export interface ReceivedSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  status: { code: number };
  attributes: Record<string, unknown>;
  /** Of the process that sent it. */
  service: string;
}

interface Export {
  resourceSpans: {
    resource: { attributes: Attribute[] };
    scopeSpans: {
      spans: (Omit<ReceivedSpan, "attributes" | "service"> & { attributes: Attribute[] })[];
    }[];
  }[];
}
interface Attribute {
  key: string;
  value: Record<string, unknown>;
}

const plain = (attributes: Attribute[]): Record<string, unknown> =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));

/** Takes spans as OTLP over HTTP in JSON. It may also hang, or answer with an error. */
export class OtlpReceiver {
  readonly spans: ReceivedSpan[] = [];
  /** What becomes of the exports that come from now on. */
  mode: "take" | "hang" | "fail" = "take";
  /** Exports that hung or failed. */
  refused = 0;
  readonly #server: Server;
  readonly #waiting = new Set<() => void>();

  private constructor(server: Server) {
    this.#server = server;
  }

  static async listen(): Promise<OtlpReceiver> {
    const server = createServer();
    const receiver = new OtlpReceiver(server);
    server.on("request", (request, response) => {
      let body = "";
      request.setEncoding("utf8").on("data", (part) => {
        body += part;
      });
      request.on("end", () => {
        if (receiver.mode !== "take") {
          receiver.refused++;
          if (receiver.mode === "fail") response.writeHead(500).end();
          receiver.#look();
          return;
        }
        if (request.url !== "/v1/traces") response.writeHead(404).end();
        else {
          receiver.#take(JSON.parse(body) as Export);
          response.setHeader("content-type", "application/json").end("{}");
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return receiver;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Resolves with what `find` gives once it gives something; rejects after `boundMs`. */
  async until<T>(find: () => T | undefined, boundMs = 30_000): Promise<T> {
    const found = Promise.withResolvers<T>();
    const look = (): void => {
      const value = find();
      if (value !== undefined) found.resolve(value);
    };
    const timer = setTimeout(() => {
      const names = this.spans.map(({ service, name }) => `${service}: ${name}`);
      found.reject(new Error(`Not in ${boundMs} ms. Spans that came: ${names.join(", ")}`));
    }, boundMs);
    this.#waiting.add(look);
    look();
    return found.promise.finally(() => {
      clearTimeout(timer);
      this.#waiting.delete(look);
    });
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  #take({ resourceSpans }: Export): void {
    for (const { resource, scopeSpans } of resourceSpans) {
      const service = String(plain(resource.attributes)["service.name"]);
      for (const { spans } of scopeSpans)
        for (const span of spans)
          this.spans.push({ ...span, attributes: plain(span.attributes), service });
    }
    this.#look();
  }

  #look(): void {
    for (const look of [...this.#waiting]) look();
  }
}
