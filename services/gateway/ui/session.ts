import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from "node:crypto";

/** Whoever has signed in is asked again after this, ms. */
export const SESSION_MS = 12 * 3_600_000;
const IV_BYTES = 12;
const TAG_BYTES = 16;
/** Ours are half as long. */
const MAX_LETTERS = 512;

export type Opened = { key: string } | "expired" | "invalid";

/**
 * Makes the sign-in cookie: the key and the time of the sign-in, encrypted. Whoever gets hold of the cookie has no key of the API, and any gateway
 * with the same secret reads it, so nothing is stored.
 */
export class SessionSeal {
  readonly #key: Buffer;

  /** `secret` is one that all gateways share. */
  constructor(secret: string) {
    this.#key = Buffer.from(hkdfSync("sha256", secret, "", "cloister dashboard session", 32));
  }

  seal(key: string, nowMs: number): string {
    const iv = randomBytes(IV_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#key, iv);
    const text = cipher.update(JSON.stringify([nowMs, key]), "utf8");
    return Buffer.concat([iv, text, cipher.final(), cipher.getAuthTag()]).toString("base64url");
  }

  open(cookie: string, nowMs: number): Opened {
    if (cookie.length > MAX_LETTERS) return "invalid";
    const bytes = Buffer.from(cookie, "base64url");
    if (bytes.length <= IV_BYTES + TAG_BYTES) return "invalid";
    let since: number;
    let key: string;
    try {
      const decipher = createDecipheriv("aes-256-gcm", this.#key, bytes.subarray(0, IV_BYTES));
      decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
      const text = decipher.update(bytes.subarray(IV_BYTES, -TAG_BYTES), undefined, "utf8");
      [since, key] = JSON.parse(text + decipher.final("utf8")) as [number, string];
    } catch {
      return "invalid";
    }
    return nowMs - since < SESSION_MS ? { key } : "expired";
  }
}
