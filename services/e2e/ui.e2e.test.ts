import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import type { Page } from "playwright-core";
import { startBrowser, type TestBrowser } from "#testkit/browser";
import { type Instance, startInstance } from "#testkit/instance";
import { call, deploy } from "./client.ts";
import { beyond, heading, api as ofApi, signedIn } from "./dashboard.ts";

let instance: Instance;
let browser: TestBrowser;

before(async () => {
  instance = await startInstance();
  browser = await startBrowser();
  const files = { "index.mjs": "export default { fetch: () => new Response('hello') };" };
  await deploy(instance, { name: "hello", files });
});
after(async () => {
  await browser?.close();
  await instance?.stop();
});
afterEach(() => {
  assert.deepEqual(browser.complaints.splice(0), []);
});

const api = (method: string, path: string, body?: unknown): Promise<Record<string, unknown>> =>
  ofApi(instance, method, path, body);

/** A key of a new tenant. */
async function keyOf(tenant: string, scopes: string[]): Promise<string> {
  await api("POST", "/tenants", { name: tenant, tier: "trusted" });
  return String((await api("POST", `/tenants/${tenant}/keys`, { name: "test", scopes })).key);
}

const signIn = (key: string, options?: Parameters<TestBrowser["open"]>[0]): Promise<Page> =>
  signedIn(browser, instance, key, options);

/** What the focus is on, by the name that people hear. */
const focused = (page: Page): Promise<string> =>
  page.evaluate(() => {
    const { document } = globalThis as unknown as {
      document: { activeElement: { id: string; textContent: string; name?: string } | null };
    };
    const at = document.activeElement;
    return at ? (at.name || at.textContent || at.id).trim().replaceAll(/\s+/g, " ") : "";
  });

/** Presses Tab until the focus is there: as far as anybody would. */
async function tabTo(page: Page, wanted: string): Promise<void> {
  const seen: string[] = [];
  for (let n = 0; n < 60; n++) {
    await page.keyboard.press("Tab");
    const at = await focused(page);
    if (at === wanted) return;
    seen.push(at);
  }
  assert.fail(`Tab never came to ${wanted}, but to ${seen.join(" | ")}`);
}

test("a wrong key is told so, a right one leads in, and out again", async () => {
  const page = await browser.open();
  await page.goto(`${instance.url}/ui/nodes`);
  await page.getByLabel("Key").fill("cl_wrong");
  await page.keyboard.press("Enter");
  await page.locator("#f-key-error").getByText("The key is not valid").waitFor();
  assert.equal(await focused(page), "key");
  await page.keyboard.type(instance.adminKey);
  await page.keyboard.press("Enter");
  await heading(page, "Nodes");
  await page.getByText("takes work").waitFor();
  const cookies = await page.context().cookies();
  assert.deepEqual(
    cookies.map(({ name, httpOnly, sameSite, path }) => ({ name, httpOnly, sameSite, path })),
    [{ name: "cloister_ui", httpOnly: true, sameSite: "Strict", path: "/ui" }],
  );
  assert.ok(!JSON.stringify(await page.context().storageState()).includes(instance.adminKey));
  assert.ok(!page.url().includes("cl_"));
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByText("You are signed out").waitFor();
  await page.goBack();
  await page.reload();
  await heading(page, "Sign in");
});

test("a tenant, a key and a quota are made by keyboard alone", async () => {
  const page = await browser.open();
  await page.goto(`${instance.url}/ui`);
  await tabTo(page, "key");
  await page.keyboard.type(instance.adminKey);
  await page.keyboard.press("Enter");
  await heading(page, "Overview");
  await page.keyboard.press("Tab");
  assert.equal(await focused(page), "Skip to the content");
  await tabTo(page, "Tenants");
  await page.keyboard.press("Enter");
  await heading(page, "Tenants");
  await tabTo(page, "New tenant");
  await page.keyboard.press("Enter");
  await heading(page, "New tenant");
  await tabTo(page, "name");
  await page.keyboard.type("keyboard");
  await tabTo(page, "tier");
  await page.keyboard.type("un");
  await page.keyboard.press("Enter");
  await tabTo(page, "Create tenant");
  await page.keyboard.press("Enter");
  await heading(page, "keyboard");
  await page.getByRole("status").getByText("The tenant was created").waitFor();
  assert.equal((await api("GET", "/tenants/keyboard")).tier, "untrusted");

  await tabTo(page, "New key");
  await page.keyboard.press("Enter");
  await heading(page, "New key");
  await tabTo(page, "name");
  await page.keyboard.type("by hand");
  await tabTo(page, "scopes");
  await page.keyboard.press("Space");
  await tabTo(page, "Create key");
  await page.keyboard.press("Enter");
  await heading(page, "Key");
  const key = await page.getByLabel("The key").inputValue();
  assert.match(key, /^cl_/);
  await tabTo(page, "I have copied it");
  await page.keyboard.press("Enter");
  await heading(page, "keyboard");
  await page.getByRole("rowheader", { name: "by hand" }).waitFor();

  await tabTo(page, "Change quota");
  await page.keyboard.press("Enter");
  await heading(page, "Change quota");
  await tabTo(page, "concurrency");
  await page.keyboard.type("minus one");
  await page.keyboard.press("Enter");
  await page.locator("#f-concurrency-error").getByText("a number or the word unlimited").waitFor();
  // What is wrong has the focus already.
  assert.equal(await focused(page), "concurrency");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("12");
  await page.keyboard.press("Enter");
  await heading(page, "keyboard");
  await page.getByRole("row", { name: /^Calls at once .* of 12/ }).waitFor();
  assert.equal((await api("GET", "/tenants/keyboard/quota")).concurrency, 12);
});

test("of two who change a quota at once, the second one is told and sees the first one's", async () => {
  await api("POST", "/tenants", { name: "contested", tier: "standard" });
  const [one, two] = await Promise.all([signIn(instance.adminKey), signIn(instance.adminKey)]);
  for (const page of [one, two]) {
    await page.goto(`${instance.url}/ui/tenants/contested/quota`);
  }
  await one.getByLabel("Calls at once").fill("5");
  await one.getByRole("button", { name: "Save quota" }).click();
  await heading(one, "contested");
  await two.getByLabel("Calls at once").fill("9");
  await two.getByRole("button", { name: "Save quota" }).click();
  await two.getByRole("alert").getByText("Somebody changed this").waitFor();
  assert.equal(await two.getByLabel("Calls at once").inputValue(), "5");
  assert.equal((await api("GET", "/tenants/contested/quota")).concurrency, 5);
  await two.getByLabel("Calls at once").fill("9");
  await two.getByRole("button", { name: "Save quota" }).click();
  await heading(two, "contested");
  assert.equal((await api("GET", "/tenants/contested/quota")).concurrency, 9);
});

test("a tenant is suspended, resumed and deleted, once more asked for", async () => {
  await api("POST", "/tenants", { name: "short-lived", tier: "standard" });
  const page = await signIn(instance.adminKey);
  await page.goto(`${instance.url}/ui/tenants/short-lived`);
  await page.getByRole("button", { name: "Suspend" }).click();
  await page.getByText("The tenant is suspended").waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("The tenant is served again").waitFor();
  await page.getByRole("link", { name: "Delete…" }).click();
  await heading(page, "Delete tenant");
  await page.getByRole("button", { name: "Delete short-lived" }).click();
  await page.getByText("The tenant was deleted").waitFor();
  await page.getByLabel("Name holds").fill("short-lived");
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByText("No tenant matches").waitFor();
  await page.goto(`${instance.url}/ui/audit`);
  await page.getByRole("cell", { name: "tenant.delete" }).first().waitFor();
});

test("hostile names are text, whatever they hold, and no page grows wider by them", async () => {
  await api("POST", "/tenants", { name: "hostile", tier: "standard" });
  const names = [
    `<script>document.title="taken"</script>`,
    `"><img src=x onerror="document.title='taken'">`,
    `' onfocus='document.title=1' autofocus='`,
    "م".repeat(100),
    "w".repeat(100),
    "&lt;b&gt; {{2}}",
  ];
  for (const name of names) await api("POST", "/tenants/hostile/keys", { name, scopes: ["read"] });
  for (const width of [360, 1440]) {
    const page = await signIn(instance.adminKey, { viewport: { width, height: 800 } });
    await page.goto(`${instance.url}/ui/tenants/hostile`);
    for (const name of names) await page.getByRole("rowheader", { name, exact: true }).waitFor();
    assert.equal(await page.title(), "hostile · Cloister");
    const [first] = await page.getByRole("link", { name: /^Revoke/ }).all();
    await first?.click();
    await page.getByRole("button", { name: `Revoke ${names[0]}`, exact: true }).waitFor();
    await page.goto(`${instance.url}/ui/audit?tenant=hostile`);
    await page.getByText(String(names[0])).first().waitFor();
    for (const path of ["/ui/tenants/hostile", "/ui/audit", "/ui/tenants", "/ui/live", "/ui"]) {
      await page.goto(`${instance.url}${path}`);
      const wider = await beyond(page);
      assert.ok(wider <= 0, `${path} is ${wider} wider than ${width}`);
    }
  }
  const page = await signIn(instance.adminKey);
  await page.goto(`${instance.url}/ui/tenants/${encodeURIComponent("<script>alert(1)</script>")}`);
  await heading(page, "No such tenant");
  await page.getByText("There is no tenant <script>alert(1)</script>").waitFor();
});

test("the live page shows a call that is made meanwhile, by path and start", async () => {
  const page = await signIn(instance.adminKey);
  await page.goto(`${instance.url}/ui/live`);
  await page.locator("#live-state").getByText("following").waitFor();
  // A node has told how it stands: it tells of calls from here on.
  await page
    .locator("#live-pool")
    .getByRole("rowheader", { name: /^node_/ })
    .waitFor();
  const seen = async (isolation: string): Promise<string> => {
    const answer = await call(instance, "hello", "/", {
      headers: { "cloister-isolation": isolation },
    });
    assert.equal(answer.status, 200, await answer.text());
    const start = answer.headers.get("cloister-start") ?? "";
    const name = new RegExp(`ok 200 default hello@1 ${isolation} ${start} `);
    await page.locator("#live-calls").getByRole("row", { name }).first().waitFor();
    const sum = new RegExp(`^${isolation} ${start} \\d+ 0 `);
    await page.locator("#live-sums").getByRole("row", { name: sum }).waitFor();
    await page.locator(`#live-marks .mark.${isolation}`).first().waitFor({ state: "attached" });
    return answer.headers.get("cloister-invocation-id") ?? "";
  };
  await seen("container");
  await seen("container");
  const id = await seen("microvm");
  await page
    .locator("#live-exits")
    .getByRole("row", { name: /^system call [1-9]/ })
    .waitFor();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator("#live-state").getByText("paused").waitFor();
  // Records are written in batches.
  let record = await page.goto(`${instance.url}/ui/invocations/${id}`);
  while (record?.status() === 404) record = await page.reload();
  await page.locator("#phase-bar rect").first().waitFor();
  await page.getByRole("row", { name: /^getting a sandbox \d/ }).waitFor();
  await page.getByText("the caller asks for a micro-VM").waitFor();
});

test("a key of one tenant sees nothing of another's, not even live", async () => {
  const key = await keyOf("private", ["read", "invoke", "deploy"]);
  const own = { url: instance.url, key };
  const files = { "index.mjs": "export default { fetch: () => new Response('mine') };" };
  await deploy(own, { name: "mine", files });
  const page = await signIn(key);
  assert.deepEqual(
    await page.getByRole("navigation", { name: "Dashboard" }).getByRole("link").allTextContents(),
    ["Overview", "Live", "Functions", "Invocations", "Usage"],
  );
  await page.goto(`${instance.url}/ui/live`);
  await page.locator("#live-state").getByText("following").waitFor();
  const foreign = await call(instance, "hello");
  assert.equal(foreign.status, 200);
  const mine = await call(own, "mine");
  assert.equal(await mine.text(), "mine");
  await page
    .locator("#live-calls")
    .getByRole("row", { name: /mine@1/ })
    .waitFor();
  const shown = await page.locator("main").innerHTML();
  assert.doesNotMatch(shown, /hello|node_|default/);
  for (const path of ["/ui/functions", "/ui/invocations", "/ui/usage"]) {
    await page.goto(`${instance.url}${path}`);
    await page.getByText("mine").first().waitFor();
    assert.doesNotMatch(await page.locator("main").innerHTML(), /hello/);
    await page.goto(`${instance.url}${path}?tenant=default`);
    await heading(page, "No such tenant");
  }
  const { status } = await page.request
    .get(`${instance.url}/ui/live/events?tenant=default`)
    .then((answer) => ({ status: answer.status() }));
  assert.equal(status, 404);
  const id = foreign.headers.get("cloister-invocation-id");
  await page.goto(`${instance.url}/ui/invocations/${id}`);
  await heading(page, "There is nothing here");
});

test("a live page whose key is revoked asks for another one", async () => {
  await api("POST", "/tenants", { name: "leaving", tier: "trusted" });
  const made = await api("POST", "/tenants/leaving/keys", { name: "test", scopes: ["read"] });
  const page = await signIn(String(made.key));
  await page.goto(`${instance.url}/ui/live`);
  await page.locator("#live-state").getByText("following").waitFor();
  await api("DELETE", `/tenants/leaving/keys/${made.id}`);
  await heading(page, "Sign in");
  await page.getByRole("alert").getByText("The key was revoked. You were signed out.").waitFor();
});

test("without scripts everything but the live parts works, and the live page says where else to look", async () => {
  const page = await signIn(instance.adminKey, { javaScriptEnabled: false });
  for (const name of [
    "Functions",
    "Invocations",
    "Usage",
    "Tenants",
    "Nodes",
    "Queues",
    "Sandboxes",
    "Audit log",
  ]) {
    await page.getByRole("navigation", { name: "Dashboard" }).getByRole("link", { name }).click();
    await heading(page, name);
    assert.equal(await page.locator("[aria-current=page]").textContent(), name);
  }
  await page.getByRole("link", { name: "Live", exact: true }).click();
  await page.getByText("a script, which does not run here").waitFor();
});
