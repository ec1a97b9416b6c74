import { connect, type Socket } from "node:net";
import { ReplyLink } from "./reply-link.ts";

export interface ReplyLinksOptions {
  nodeId: string;
  /** CLOISTER_LINK_SECRET. */
  secret: string;
  /** A connection no invocation used this long is closed, ms. */
  idleMs?: number;
  onProblem?: (error: Error) => void;
  /** Called before anything leaves for a gateway. */
  beforeSend?: () => void;
}

const CONNECT_TIMEOUT_MS = 3000;
const IDLE_MS = 60_000;
/** Addresses a worker is connected to at once; jobs name them, so they are bounded. */
const MAX_LINKS = 256;

/** One connection to each gateway that has work for this worker, opened when a job first names it. */
export class ReplyLinks {
  readonly #options: ReplyLinksOptions;
  readonly #links = new Map<string, ReplyLink | Promise<ReplyLink>>();

  constructor(options: ReplyLinksOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#links.size;
  }

  /** The link at once when it is there, else a promise that rejects when the gateway cannot be reached or refuses us. */
  get(address: string): ReplyLink | Promise<ReplyLink> {
    const known = this.#links.get(address);
    if (known) return known;
    if (this.#links.size >= MAX_LINKS)
      return Promise.reject(new Error(`More than ${MAX_LINKS} gateways have work for this worker`));
    const opening = this.#open(address);
    this.#links.set(address, opening);
    opening.then(
      (link) => {
        if (this.#links.get(address) === opening) this.#links.set(address, link);
      },
      () => this.#links.delete(address),
    );
    return opening;
  }

  close(): void {
    for (const link of this.#links.values())
      Promise.resolve(link).then(
        (open) => open.close(),
        () => {},
      );
    this.#links.clear();
  }

  async #open(address: string): Promise<ReplyLink> {
    const socket = await dial(address);
    const link: ReplyLink = new ReplyLink(socket, {
      idleMs: this.#options.idleMs ?? IDLE_MS,
      ...(this.#options.beforeSend ? { beforeSend: this.#options.beforeSend } : {}),
      closed: (error) => {
        if (this.#links.get(address) === link) this.#links.delete(address);
        if (error) this.#options.onProblem?.(error);
      },
    });
    await link.hello(this.#options.nodeId, this.#options.secret);
    return link;
  }
}

/** Connects `unix:/path` or `tcp:host:port`; rejects after 3 s. */
function dial(address: string): Promise<Socket> {
  const tcp = /^tcp:(.+):(\d{1,5})$/.exec(address);
  if (!tcp && !address.startsWith("unix:/"))
    return Promise.reject(new Error("A job names a reply address that is neither unix: nor tcp:"));
  const socket = tcp
    ? connect({ host: (tcp[1] ?? "").replace(/^\[|\]$/g, ""), port: Number(tcp[2]), noDelay: true })
    : connect({ path: address.slice("unix:".length) });
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => socket.destroy(new Error(`${address} did not accept in ${CONNECT_TIMEOUT_MS} ms`)),
      CONNECT_TIMEOUT_MS,
    );
    const failed = (error: Error): void => {
      clearTimeout(timer);
      reject(error);
    };
    socket.once("error", failed);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.off("error", failed);
      resolve(socket);
    });
  });
}
