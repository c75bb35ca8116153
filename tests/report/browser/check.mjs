// node check.mjs PAGE.html|URL [TEXT]
// Opens the page at the widths of a phone and a desktop, light and dark, and prints as JSON its console
// messages, its requests to other origins, its horizontal overflow, its load time, and what axe finds.
// With TEXT, it types it into the first field, with the keyboard alone, and waits for an answer.
// CHROMIUM is the browser's executable, if it is not `chromium`.

import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

import { chromium } from "playwright-core";

const VIEWS = [
  { width: 380, colorScheme: "light" },
  { width: 380, colorScheme: "dark" },
  { width: 1280, colorScheme: "light" },
  { width: 1280, colorScheme: "dark" },
];

async function main() {
  const [page, text] = process.argv.slice(2);
  if (page === undefined) throw new Error("usage: node check.mjs PAGE.html|URL [TEXT]");
  const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf-8");
  const browser = await chromium.launch({
    executablePath: browserProgram(),
    args: ["--disable-background-networking", "--disable-component-update"],
    chromiumSandbox: false,
  });
  try {
    const address = page.startsWith("http") ? page : pathToFileURL(resolve(page)).href;
    const found = [];
    for (const view of VIEWS) found.push(await look(browser, address, view, axe, text));
    console.log(JSON.stringify(found));
  } finally {
    await browser.close();
  }
}

/** One view of the page; axe runs with every section unfolded. */
async function look(browser, address, view, axe, text) {
  const context = await browser.newContext({
    viewport: { width: view.width, height: 900 },
    colorScheme: view.colorScheme,
    bypassCSP: true, // for axe, which the page's own policy blocks
  });
  const page = await context.newPage();
  const messages = [];
  const requests = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) messages.push(message.text());
  });
  page.on("pageerror", (error) => messages.push(error.message));
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(address);
  const interactive = await page.evaluate(
    () => performance.getEntriesByType("navigation")[0].domInteractive,
  );
  const answers = text === undefined ? [] : await ask(page, text);
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  await page.evaluate(axe);
  const violations = await page.evaluate(async () =>
    (await globalThis.axe.run()).violations.map(
      (rule) => `${rule.id}: ${rule.nodes.slice(0, 3).map((node) => node.html).join(" ")}`,
    ),
  );
  await context.close();
  const own = address.startsWith("http") ? new URL(address).origin : address;
  const outside = requests.filter((url) => !url.startsWith(own) && !url.startsWith("data:"));
  return { ...view, messages, outside, overflow, interactive, violations, answers };
}

/** Types a text, submits it with Ctrl and Enter, and reads the answer: one line per label. */
async function ask(page, text) {
  await page.locator("textarea").first().focus();
  await page.keyboard.type(text);
  await page.keyboard.press("Control+Enter");
  await page.locator("#bars li").first().waitFor();
  return page.locator("#bars li").allInnerTexts();
}

function browserProgram() {
  return process.env.CHROMIUM ?? execFileSync("which", ["chromium"], { encoding: "utf-8" }).trim();
}

await main();
