import assert from "node:assert/strict";
import type { Page } from "playwright-core";
import type { TestBrowser } from "#testkit/browser";
import type { Instance } from "#testkit/instance";

/** The admin API, for what a test needs beside the pages. */
export async function api(
  instance: Instance,
  method: string,
  path: string,
  body?: unknown,
): Promise<Record<string, unknown>> {
  const response = await fetch(`${instance.url}/admin/v1${path}`, {
    method,
    headers: {
      authorization: `Bearer ${instance.adminKey}`,
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
  return text === "" ? {} : (JSON.parse(text) as Record<string, unknown>);
}

/** A page of somebody who has signed in with this key. */
export async function signedIn(
  browser: TestBrowser,
  { url }: Pick<Instance, "url">,
  key: string,
  options?: Parameters<TestBrowser["open"]>[0],
): Promise<Page> {
  const page = await browser.open(options);
  await page.goto(`${url}/ui`);
  await page.getByLabel("Key").fill(key);
  await page.getByRole("button", { name: "Sign in" }).click();
  await heading(page, "Overview");
  return page;
}

export const heading = (page: Page, name: string | RegExp): Promise<void> =>
  page.getByRole("heading", { level: 1, name, exact: true }).waitFor();

/** By how much the page is wider than its window, pixels. */
export const beyond = (page: Page): Promise<number> =>
  page.evaluate(() => {
    const { document, innerWidth } = globalThis as unknown as {
      document: { documentElement: { scrollWidth: number } };
      innerWidth: number;
    };
    return document.documentElement.scrollWidth - innerWidth;
  });
