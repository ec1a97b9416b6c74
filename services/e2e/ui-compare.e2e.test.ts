import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import type { Page } from "playwright-core";
import { startBrowser, type TestBrowser } from "#testkit/browser";
import { type Instance, startInstance } from "#testkit/instance";
import { deploy } from "./client.ts";
import { beyond, heading, api as ofApi, signedIn } from "./dashboard.ts";

let instance: Instance;
let browser: TestBrowser;

/** Answers an event, and HTTP; fails when it is told to. */
const MAIN = `
export default {
  fetch(request) {
    const { pathname } = new URL(request.url);
    return new Response(pathname, { status: pathname === "/bad" ? 500 : 200 });
  },
};
export const handler = (event) => ({ got: event });
`;

before(async () => {
  instance = await startInstance();
  browser = await startBrowser();
  await deploy(instance, { name: "hello", files: { "index.mjs": MAIN } });
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

/** A key of a tenant that there is, or of a new one. */
async function keyOf(
  tenant: string,
  scopes: string[],
  tier?: string,
): Promise<{ id: string; key: string }> {
  if (tier !== undefined) await api("POST", "/tenants", { name: tenant, tier });
  const { id, key } = await api("POST", `/tenants/${tenant}/keys`, { name: "test", scopes });
  return { id: String(id), key: String(key) };
}

const signIn = (key: string, options?: Parameters<TestBrowser["open"]>[0]): Promise<Page> =>
  signedIn(browser, instance, key, options);

/** Opens the form, and leaves it to the test what is sent. */
async function formOf(page: Page, name: string): Promise<void> {
  await page.goto(`${instance.url}/ui/functions/${name}`);
  await page.getByRole("link", { name: "Compare its paths" }).click();
  await heading(page, `Compare ${name}`);
}

const start = (page: Page) => page.getByRole("button", { name: "Compare", exact: true }).click();
/** The result has taken the place of the progress. */
const complete = (page: Page) =>
  page.getByRole("heading", { level: 2, name: "Both paths" }).waitFor();
/** It runs, and has told of runs that were made. */
const underWay = (page: Page) =>
  page
    .locator("#compare-cells")
    .getByRole("row", { name: /^container cold \d/ })
    .waitFor();

/** Stops whatever this page shows, and waits for what it has measured. */
async function stop(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByText("Stopped early. It was interrupted.").waitFor();
}

test("both paths are compared by keyboard, with progress, and shown with tables, plots, Markdown and JSON", async () => {
  const page = await signIn(instance.adminKey);
  await formOf(page, "hello");
  const runs = page.getByLabel("Runs of each start");
  assert.equal(await runs.inputValue(), "50");
  await runs.fill("6");
  await page.getByLabel("Event data").fill('{"a": "<script>document.title=1</script>"}');
  await page.getByRole("button", { name: "Compare", exact: true }).focus();
  await page.keyboard.press("Enter");
  await heading(page, "Comparison of hello");
  await page.locator("#compare-bar").waitFor();
  await underWay(page);
  await complete(page);
  assert.equal(await page.title(), "Comparison of hello · Cloister");
  for (const name of [
    /^container cold 6 0 \d/,
    /^container prepared 6 0 \d/,
    /^container warm 6 0 \d/,
    /^microvm cold 6 0 \d/,
    /^microvm restored 6 0 \d/,
    /^microvm warm 6 0 \d/,
    /^microvm cold container cold [\d.]+ [\d.]+ to [\d.]+/,
    /^queue [\d.]/,
  ])
    await page.getByRole("row", { name }).first().waitFor();
  await page
    .getByRole("region", { name: /virtual processor/ })
    .getByRole("row", { name: /^microvm warm \d/ })
    .waitFor();
  assert.equal(await page.locator("#cdf .series path").count(), 6 + 6);
  assert.ok((await page.locator("#phases rect.part").count()) > 6);
  const first = page.locator("#cdf svg[role=img] .at-0");
  assert.ok(await first.isVisible());
  await page.locator("#cdf").getByLabel("container cold").press("Space");
  assert.ok(await first.isHidden());

  await page.getByText("The tables as Markdown", { exact: true }).click();
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByRole("button", { name: "Copy" }).click();
  await page.getByText("Copied.").waitFor();
  const copied = await page.evaluate(() => {
    const { navigator } = globalThis as unknown as {
      navigator: { clipboard: { readText(): Promise<string> } };
    };
    return navigator.clipboard.readText();
  });
  const at = page.url();
  const markdown = await (await page.request.get(`${at}/table.md`)).text();
  assert.equal(copied, markdown);
  assert.match(markdown, /^\| path \| start \|.*\n\| --- \|[^\n]*\n\| container \| cold \| 6 \|/);
  const json = (await (await page.request.get(`${at}/result.json`)).json()) as {
    n: number;
    call: string;
    paths: { path: string; starts: { times_ms: number[] }[] }[];
  };
  assert.equal(json.n, 6);
  assert.deepEqual(
    json.paths.map(({ path, starts }) => [path, ...starts.map((one) => one.times_ms.length)]),
    [
      ["container", 6, 6, 6],
      ["microvm", 6, 6, 6],
    ],
  );
  for (const width of [360, 1440]) {
    await page.setViewportSize({ width, height: 800 });
    for (const path of [at, `${instance.url}/ui/functions/hello/compare`]) {
      await page.goto(path);
      await page.getByRole("heading", { level: 1 }).waitFor();
      const wider = await beyond(page);
      assert.ok(wider <= 0, `${path} is ${wider} wider than ${width}`);
      await shot(page, `${path.endsWith("compare") ? "form" : "result"}-${width}`);
    }
  }
  await page.getByText("complete").waitFor();
});

/** A picture of the page, in light and dark, for whoever wants to look at it. */
async function shot(page: Page, name: string): Promise<void> {
  const folder = process.env.CLOISTER_TEST_PICTURES;
  if (folder === undefined) return;
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: `${folder}/${name}-${colorScheme}.png`, fullPage: true });
  }
}

test("a path that the tenant may not have is told with its reason, and the other one is measured", async () => {
  const { key } = await keyOf("strangers", ["read", "invoke", "deploy"], "untrusted");
  const files = { "main.py": "def handler(event, context):\n    return {'got': event}\n" };
  await deploy({ url: instance.url, key }, { name: "walled", runtime: "python3", files });
  const page = await signIn(key);
  await formOf(page, "walled");
  await page.getByLabel("Runs of each start").fill("1");
  await page.getByLabel("Event data").fill("1");
  await start(page);
  await complete(page);
  await page.getByText(/^The container path cannot be had: .{10}/).waitFor();
  await page.getByRole("row", { name: /^container not to be had/ }).waitFor();
  await page.getByRole("row", { name: /^microvm cold 1 0 \d/ }).waitFor();
  await page.getByText("There are no two starts to set against each other.").waitFor();
  await shot(page, "one-path");
});

test("a quota that lets nothing in is told on the page, with what to do", async () => {
  const { key } = await keyOf("capped", ["read", "invoke", "deploy"], "trusted");
  await deploy({ url: instance.url, key }, { name: "hello", files: { "index.mjs": MAIN } });
  await api("PUT", "/tenants/capped/quota", { concurrency: 0 });
  const page = await signIn(key);
  await formOf(page, "hello");
  await start(page);
  await page.getByRole("alert").getByText("quota concurrency allows 0").waitFor();
  await page.getByText("quota_exceeded").waitFor();
  await page.getByRole("link", { name: "Compare again" }).click();
  await page.getByRole("row", { name: /failed$/ }).waitFor();
});

test("what is wrong with the form is said beside its field, and what was typed stays", async () => {
  const page = await signIn(instance.adminKey);
  const refused = async (label: string, text: string, field: string, words: string) => {
    await formOf(page, "hello");
    await page.getByLabel(label, { exact: true }).fill(text);
    await start(page);
    await page.getByRole("alert").getByText("Nothing was started").waitFor();
    await page.locator(`#f-${field}-error`).getByText(words).waitFor();
    assert.equal(await page.getByLabel(label, { exact: true }).inputValue(), text);
  };
  await refused("Runs of each start", "0", "n", "at least 1");
  await refused("Runs of each start", "1001", "n", "at most 1,000");
  await refused("Runs of each start", "many", "n", "a number");
  await refused("Runs of each start", "1.5", "n", "a whole number");
  await refused("Event data", "{", "data", "this is not JSON");
  await refused("Path", "x", "path", "start with");
  await formOf(page, "hello");
  await page.getByLabel("container").uncheck();
  await page.getByLabel("micro-VM").uncheck();
  await start(page);
  await page.locator("#f-paths-error").getByText("choose at least one").waitFor();
  await formOf(page, "hello");
  await page.getByLabel("Body").fill("x");
  await start(page);
  await page.getByRole("alert").getByText("A GET request has no body").waitFor();
  await page.goto(`${instance.url}/ui/functions/nothing/compare`);
  await heading(page, "No such function");
});

test("one that runs is told of in place of a second, and ended with what it has; a failing function is told, too", async () => {
  const page = await signIn(instance.adminKey);
  await formOf(page, "hello");
  await page.getByLabel("Runs of each start").fill("1000");
  await start(page);
  await underWay(page);
  await shot(page, "progress");
  const at = page.url();
  await formOf(page, "hello");
  await page.getByText("One comparison runs already").waitFor();
  await page.getByLabel("Runs of each start").fill("1");
  await start(page);
  await page.getByRole("alert").getByText("Another comparison of this tenant").waitFor();
  await page.goto(at);
  await underWay(page);
  await stop(page);
  await page.getByRole("row", { name: /^container cold \d+ 0 / }).waitFor();

  await formOf(page, "hello");
  await page.getByLabel("Runs of each start").fill("1000");
  await page.getByLabel("Path", { exact: true }).fill("/bad");
  await start(page);
  await complete(page);
  await page.getByText(/Every call of the first 3 rounds failed: .* answered 500/).waitFor();
});

test("without a script the page says so, and is complete once it is loaded again", async () => {
  const page = await signIn(instance.adminKey, { javaScriptEnabled: false });
  await formOf(page, "hello");
  await page.getByLabel("Runs of each start").fill("1000");
  await start(page);
  await page.getByText("a script, which does not run here").waitFor();
  const row = page.locator("#compare-cells").getByRole("row", { name: /^container cold \d/ });
  while (!(await row.isVisible())) await page.getByRole("link", { name: "Load it again" }).click();
  await stop(page);
  await complete(page);
});

test("nobody of another tenant sees a comparison, follows or stops it; a key without invoke starts none", async () => {
  const page = await signIn(instance.adminKey);
  await formOf(page, "hello");
  await page.getByLabel("Runs of each start").fill("1000");
  await start(page);
  await underWay(page);
  const at = page.url();
  const other = await signIn((await keyOf("elsewhere", ["read", "invoke"], "trusted")).key);
  for (const path of ["", "/events", "/table.md", "/result.json"])
    assert.equal((await other.request.get(`${at}${path}`)).status(), 404, path);
  const headers = { origin: instance.url };
  assert.equal((await other.request.post(`${at}/stop`, { headers, form: {} })).status(), 404);
  await other.goto(`${instance.url}/ui/functions/hello/compare`);
  await heading(other, "No such function");
  const begin = `${instance.url}/ui/functions/hello/compare`;
  const fields = { n: "1", paths: "container" };
  assert.equal((await other.request.post(begin, { headers, form: fields })).status(), 404);

  const reader = await signIn((await keyOf("default", ["read"])).key);
  await reader.goto(begin);
  await reader.getByText("comparing needs one with the scope invoke").waitFor();
  assert.equal(await reader.getByRole("button", { name: "Compare", exact: true }).count(), 0);
  assert.equal((await reader.request.post(begin, { headers, form: fields })).status(), 403);
  await reader.goto(at);
  await underWay(reader);
  assert.equal(await reader.getByRole("button", { name: "Stop" }).count(), 0);
  assert.equal((await reader.request.post(`${at}/stop`, { headers, form: {} })).status(), 403);
  // A form of another site neither starts nor stops anything.
  for (const address of [begin, `${at}/stop`]) {
    const forged = { headers: { origin: "https://evil.example" }, form: fields };
    assert.equal((await page.request.post(address, forged)).status(), 403);
  }
  await stop(page);
});

test("a comparison whose key is revoked ends, and its page asks for another key", async () => {
  const { id, key } = await keyOf("default", ["read", "invoke"]);
  const page = await signIn(key);
  await formOf(page, "hello");
  await page.getByLabel("Runs of each start").fill("1000");
  await start(page);
  await underWay(page);
  const at = page.url();
  await api("DELETE", `/tenants/default/keys/${id}`);
  await heading(page, "Sign in");
  await page.getByRole("alert").getByText("The key was revoked. You were signed out.").waitFor();
  const owner = await signIn(instance.adminKey);
  await owner.goto(at);
  await owner.getByText("Stopped early. It was interrupted.").waitFor();
});
