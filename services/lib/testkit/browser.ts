import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { promisify } from "node:util";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";

const CHROMIUM = "/usr/bin/chromium";
/** Longest a page may take for anything: only a page that hangs takes it, ms. */
const BOUND_MS = 60_000;

/** Debian's chromium; only tests need it, so that they install it where it is missing. */
async function installed(): Promise<string> {
  if (existsSync(CHROMIUM)) return CHROMIUM;
  const apt = (...words: string[]) =>
    promisify(execFile)("apt-get", ["-q", "-o", "DPkg::Lock::Timeout=300", ...words], {
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
      maxBuffer: 64 * 1024 * 1024,
    });
  await apt("update");
  await apt("install", "-y", "--no-install-recommends", "chromium", "fonts-dejavu-core");
  return CHROMIUM;
}

/** A browser, and everything its pages complained of. */
export interface TestBrowser {
  /** Violations of the content security policy, script errors and failed loads, of all pages. */
  complaints: string[];
  /** A page in a profile of its own. */
  open(options?: Parameters<Browser["newContext"]>[0]): Promise<Page>;
  close(): Promise<void>;
}

export async function startBrowser(): Promise<TestBrowser> {
  const browser = await chromium.launch({
    executablePath: await installed(),
    // Chromium's own sandbox does not start as root; the pages are ours.
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  });
  const complaints: string[] = [];
  const contexts: BrowserContext[] = [];
  return {
    complaints,
    async open(options = {}) {
      const context = await browser.newContext(options);
      context.setDefaultTimeout(BOUND_MS);
      contexts.push(context);
      const page = await context.newPage();
      page.on("pageerror", (error) => complaints.push(`${page.url()}: ${error.message}`));
      page.on("console", (message) => {
        // The browser logs each answer of 4xx, which forms give on purpose.
        const ofStatus = /^Failed to load resource: .* status of 4\d\d/.test(message.text());
        if (message.type() === "error" && !ofStatus)
          complaints.push(`${page.url()}: ${message.text()}`);
      });
      await page.addInitScript(() => {
        const { document } = globalThis as unknown as { document: EventTarget };
        document.addEventListener("securitypolicyviolation", (event) => {
          const { violatedDirective, blockedURI } = event as Event & Record<string, unknown>;
          console.error(`violation of ${violatedDirective} by ${blockedURI}`);
        });
      });
      return page;
    },
    async close() {
      await Promise.all(contexts.map((context) => context.close()));
      await browser.close();
    },
  };
}
