import { createHash, timingSafeEqual } from "node:crypto";
import { chmodSync, existsSync, unlinkSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { FRAME, jsonObject, ProtocolError } from "#protocol/frames";
import { InvocationLink } from "#protocol/link";

export interface ReplyServerOptions {
  /** `unix:/path` or `tcp:host:port`. */
  address: string;
  /** CLOISTER_LINK_SECRET. */
  secret: string;
  /** Attaches the stream to the caller that waits for `invocation`; false when nobody does. */
  attach: (invocation: string, link: InvocationLink, streamId: number) => boolean;
  /** A worker's connection is gone; its callers have been told. */
  lost: (worker: string, error: Error | undefined) => void;
  onProblem: (error: Error) => void;
}

/** A peer that has not said who it is by then is none of ours, ms. */
const HELLO_MS = 5000;
/** Connections that have not said hello, at once. */
const MAX_STRANGERS = 64;

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

/** The gateway's end of the reply link: takes answers from workers that know the secret. */
export class ReplyServer {
  readonly #options: ReplyServerOptions;
  readonly #secret: Buffer;
  readonly #server: Server;
  readonly #links = new Set<InvocationLink>();
  readonly #sockets = new Set<Socket>();

  constructor(options: ReplyServerOptions) {
    this.#options = options;
    this.#secret = digest(options.secret);
    this.#server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
  }

  /** Workers that have said hello. */
  get links(): number {
    return this.#links.size;
  }

  /** Resolves with the address that jobs name; a port of 0 is replaced by the one that was given. */
  async listen(): Promise<string> {
    const { address } = this.#options;
    const tcp = /^tcp:(.+):(\d{1,5})$/.exec(address);
    const path = address.slice("unix:".length);
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      if (tcp) {
        const host = (tcp[1] ?? "").replace(/^\[|\]$/g, "");
        this.#server.listen({ host, port: Number(tcp[2]) }, resolve);
        return;
      }
      // Left by a gateway that was killed; its supervisor ends the old one before it starts the next.
      if (existsSync(path)) unlinkSync(path);
      this.#server.listen(path, resolve);
    });
    this.#server.on("error", this.#options.onProblem);
    if (!tcp) {
      chmodSync(path, 0o660);
      return address;
    }
    const bound = this.#server.address();
    const port = typeof bound === "object" && bound ? bound.port : tcp[2];
    return `tcp:${tcp[1]}:${port}`;
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #accept(socket: Socket): void {
    if (this.#sockets.size - this.#links.size >= MAX_STRANGERS) {
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    let worker: string | undefined;
    const timer = setTimeout(() => socket.destroy(), HELLO_MS);
    const link: InvocationLink = new InvocationLink(socket, {
      invoke: (id, head) => {
        if (worker === undefined) throw new ProtocolError("A stream before hello");
        const { invocation } = head;
        if (typeof invocation !== "string" || !this.#options.attach(invocation, link, id))
          link.refuse(id);
      },
      control: (type, stream, payload) => {
        if (type !== FRAME.REQUEST || worker !== undefined)
          throw new ProtocolError(`Frame type ${type} is not expected on stream ${stream}`);
        worker = this.#helloOf(payload);
        clearTimeout(timer);
        this.#links.add(link);
        link.connection.sendJson(FRAME.REPLY, stream, { ok: true });
      },
      closed: (error) => {
        clearTimeout(timer);
        this.#sockets.delete(socket);
        this.#links.delete(link);
        if (worker !== undefined) this.#options.lost(worker, error);
        else if (error) this.#options.onProblem(error);
      },
    });
  }

  /** The worker's id. Throws ProtocolError, which closes the connection, for anyone who does not know the secret. */
  #helloOf(payload: Buffer): string {
    const { op, worker, token, version } = jsonObject(payload);
    if (op !== "hello" || version !== 1 || typeof worker !== "string" || worker.length > 64)
      throw new ProtocolError("A hello of another kind");
    if (typeof token !== "string" || !timingSafeEqual(digest(token), this.#secret))
      throw new ProtocolError("A worker with another CLOISTER_LINK_SECRET");
    return worker;
  }
}
