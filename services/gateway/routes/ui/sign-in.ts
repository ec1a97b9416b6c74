import { getConnInfo } from "@hono/node-server/conninfo";
import type { Hono } from "hono";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { createMiddleware } from "hono/factory";
import { readTenant } from "#db/tenants";
import { CloisterError } from "#errors/catalogue";
import type { Authenticator, Caller } from "../../auth/authenticator.ts";
import type { GatewayContext } from "../../gateway-context.ts";
import { FailedSignIns } from "../../ui/failed-sign-ins.ts";
import { SessionSeal } from "../../ui/session.ts";
import { signInPage } from "../../ui/sign-in-view.ts";
import { type Viewer, viewerOf } from "../../ui/viewer.ts";
import { readForm } from "./form.ts";
import { after, saidOf } from "./said.ts";
import { show, type UiContext, type UiEnv } from "./ui-env.ts";

const COOKIE = "cloister_ui";
const OPEN = new Set(["/ui/sign-in"]);

/** Where one goes after signing in: a page of the dashboard, and nothing else. */
const nextOf = (text: string): string =>
  /^\/ui(?:[/?][\w\-./~%?=&+:]*)?$/.test(text) && !text.startsWith("/ui/sign-") ? text : "/ui";

/** Who has which key; the error says why nobody may sign in with it. */
async function viewerWith(
  { authenticator, db }: Pick<GatewayContext, "authenticator" | "db">,
  key: string,
): Promise<Viewer> {
  const caller = await seeing(authenticator, key);
  const tenant = await readTenant(db, caller.tenantId);
  // Deleted since the key was looked up.
  if (!tenant) throw new CloisterError("unauthenticated", "The key is not valid");
  return viewerOf(caller, { id: tenant.id, name: tenant.name });
}

/** A key that may read or govern something. */
async function seeing(authenticator: Authenticator, key: string): Promise<Caller> {
  try {
    return await authenticator.authenticate(key, "read");
  } catch (error) {
    if (!(error instanceof CloisterError && error.code === "forbidden")) throw error;
    return authenticator.authenticate(key, "admin");
  }
}

const words = (error: CloisterError): string =>
  error.code === "tenant_suspended"
    ? "The tenant of this key is suspended: ask the operator to resume it."
    : error.code === "forbidden"
      ? "This key may see nothing here: it needs the scope read or admin."
      : `${error.message}.`;

/** Errors that say something of the key, not of us. */
const REFUSALS = new Set(["unauthenticated", "forbidden", "tenant_suspended"]);
const isRefusal = (error: unknown): error is CloisterError =>
  error instanceof CloisterError && REFUSALS.has(error.code);

/** Who has come in, asked again. */
export interface Door {
  /** Whether the key of a request still has all the scopes it came in with; true when nobody can tell. */
  stillOpen: (c: UiContext) => Promise<boolean>;
}

/** Signing in and out, and the door before everything else. */
export function registerSignIn(ui: Hono<UiEnv>, gateway: GatewayContext): Door {
  const seal = new SessionSeal(gateway.sessionSecret);
  const failures = new FailedSignIns();
  const behindTls = gateway.publicUrl.startsWith("https:");
  const options = { path: "/ui", httpOnly: true, sameSite: "Strict" } as const;
  // A proxy that says so is believed: whoever makes it up keeps only his own cookie from http.
  const isHttps = (c: UiContext): boolean =>
    behindTls || c.req.header("x-forwarded-proto") === "https";

  /** The page itself is to say why one was signed out, so that its stream and the script's questions leave the cookie to it. */
  const forget = (c: UiContext): void => {
    const ofScript =
      c.req.method === "HEAD" || c.req.header("accept")?.includes("text/event-stream") === true;
    if (!ofScript) deleteCookie(c, COOKIE, options);
  };

  const door = createMiddleware<UiEnv>(async (c, next) => {
    if (OPEN.has(c.req.path)) return next();
    const refuse = (sentence: string | undefined) => {
      const next = c.req.method === "GET" ? c.req.path + new URL(c.req.url).search : "/ui";
      return show(c, signInPage(nextOf(next), sentence === undefined ? {} : { "": sentence }), 401);
    };
    const cookie = getCookie(c, COOKIE);
    if (cookie === undefined) return refuse(undefined);
    const opened = seal.open(cookie, Date.now());
    if (typeof opened === "string") {
      forget(c);
      return refuse(
        opened === "expired" ? "You signed in too long ago: sign in again." : undefined,
      );
    }
    let viewer: Viewer;
    try {
      viewer = await viewerWith(gateway, opened.key);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      forget(c);
      return refuse(`${words(error)} You were signed out.`);
    }
    c.set("viewer", viewer);
    c.set("caller", viewer.caller);
    return next();
  });
  ui.use(door);

  ui.get("/sign-in", (c) => show(c, signInPage("/ui", {}, saidOf(c.req.query("said")))));

  ui.post("/sign-in", async (c) => {
    const form = await readForm(c);
    const next = nextOf(form.text("next"));
    const address = getConnInfo(c).remote.address ?? "unknown";
    const waitMs = failures.waitMs(address, Date.now());
    if (waitMs > 0) {
      const seconds = Math.ceil(waitMs / 1000);
      c.header("retry-after", String(seconds));
      const sentence = `Too many wrong keys from here. Try again in ${seconds} s.`;
      return show(c, signInPage(next, { "": sentence }), 429);
    }
    const key = form.text("key").trim();
    if (key === "") return show(c, signInPage(next, { key: "A key is needed" }), 400);
    try {
      await viewerWith(gateway, key);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      failures.failed(address, Date.now());
      return show(
        c,
        signInPage(next, { key: words(error) }),
        error.code === "unauthenticated" ? 401 : 403,
      );
    }
    // Without a time of its own: it goes when the browser is closed.
    setCookie(c, COOKIE, seal.seal(key, Date.now()), { ...options, secure: isHttps(c) });
    return c.redirect(next, 303);
  });

  ui.post("/sign-out", (c) => {
    deleteCookie(c, COOKIE, options);
    return c.redirect(after("/ui/sign-in", "signed-out"), 303);
  });

  return {
    async stillOpen(c) {
      const opened = seal.open(getCookie(c, COOKIE) ?? "", Date.now());
      if (typeof opened === "string") return false;
      const { scopes } = c.get("caller");
      return seeing(gateway.authenticator, opened.key).then(
        (now) => scopes.every((scope) => now.scopes.includes(scope)),
        (error: unknown) => !isRefusal(error),
      );
    },
  };
}
