import assert from "node:assert/strict";

export type Json = Record<string, unknown>;

/** An answer, read. */
export interface Told {
  status: number;
  headers: Headers;
  body: Json;
}

/** Sends requests with one key and reads what comes back. */
export class AdminClient {
  readonly #url: string;
  readonly #key: string;

  constructor(url: string, key: string) {
    this.#url = url;
    this.#key = key;
  }

  async send(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Told> {
    const response = await fetch(`${this.#url}${path}`, {
      method,
      signal: AbortSignal.timeout(30_000),
      headers: {
        authorization: `Bearer ${this.#key}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      ...(body === undefined
        ? {}
        : { body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
    const text = await response.text();
    return {
      status: response.status,
      headers: response.headers,
      body: text === "" ? {} : (JSON.parse(text) as Json),
    };
  }

  /** The body of an answer that has to be this one. */
  async expect(status: number, ...request: Parameters<AdminClient["send"]>): Promise<Json> {
    const told = await this.send(...request);
    assert.equal(told.status, status, JSON.stringify(told.body));
    return told.body;
  }

  /** The detail of a refusal that has to be this one. */
  async refused(
    status: number,
    code: string,
    ...request: Parameters<AdminClient["send"]>
  ): Promise<string> {
    const told = await this.send(...request);
    assert.deepEqual([told.status, told.body.code], [status, code], JSON.stringify(told.body));
    assert.equal(told.headers.get("content-type"), "application/problem+json");
    assert.ok(told.body.remedy);
    return String(told.body.detail);
  }

  /** Creates a tenant and gives its id. */
  async tenant(name: string, tier = "standard"): Promise<string> {
    return String((await this.expect(201, "POST", "/admin/v1/tenants", { name, tier })).id);
  }

  /** Creates a key of a tenant and gives a client that uses it. */
  async clientOf(
    tenant: string,
    scopes: string[],
  ): Promise<{ id: string; key: string; client: AdminClient }> {
    const path = `/admin/v1/tenants/${tenant}/keys`;
    const made = await this.expect(201, "POST", path, { name: "test", scopes });
    const key = String(made.key);
    return { id: String(made.id), key, client: new AdminClient(this.#url, key) };
  }
}
