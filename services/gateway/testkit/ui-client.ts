/** A page, read. */
export interface ToldPage {
  status: number;
  headers: Headers;
  text: string;
}

/** Reads pages of the dashboard and sends its forms, as a browser without scripts would. */
export class UiClient {
  readonly #url: string;
  #cookie = "";

  constructor(url: string) {
    this.#url = url;
  }

  get cookie(): string {
    return this.#cookie;
  }

  async send(path: string, init: RequestInit = {}): Promise<ToldPage> {
    const headers = new Headers(init.headers);
    if (this.#cookie !== "") headers.set("cookie", this.#cookie);
    const response = await fetch(`${this.#url}${path}`, {
      redirect: "manual",
      signal: AbortSignal.timeout(30_000),
      ...init,
      headers,
    });
    for (const set of response.headers.getSetCookie())
      this.#cookie = /max-age=0/i.test(set) ? "" : (set.split(";")[0] ?? "");
    return { status: response.status, headers: response.headers, text: await response.text() };
  }

  /** Sends a form; from the dashboard's own origin unless another is given. */
  post(
    path: string,
    fields: Record<string, string> | [string, string][],
    headers: Record<string, string> = { origin: this.#url },
  ): Promise<ToldPage> {
    return this.send(path, {
      method: "POST",
      headers: { "content-type": "application/x-www-form-urlencoded", ...headers },
      body: new URLSearchParams(fields).toString(),
    });
  }

  signIn(key: string, next = "/ui"): Promise<ToldPage> {
    return this.post("/ui/sign-in", { key, next });
  }

  /** The etag that the page's first form carries. */
  async etag(path: string): Promise<string> {
    const { text } = await this.send(path);
    const found = /name="etag" value="([^"]*)"/.exec(text)?.[1];
    if (found === undefined) throw new Error(`${path} has no form with an etag: ${text}`);
    return found.replaceAll("&quot;", '"');
  }
}
