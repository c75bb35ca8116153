// node check.mjs ADDRESS PROFILE INPUTS.json [RUNS]
// Opens the page in headless Chromium and prints as JSON what it answered, said and asked for.
// PROFILE is the browser's folder: with the same one again, it has visited the page before.
// CHROMIUM names the browser's program, if it is not `chromium`.

import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";

import { chromium } from "playwright-core";

const READY_MS = 120_000;

async function main() {
  const [address, profile, inputs, runs = "100"] = process.argv.slice(2);
  if (inputs === undefined) throw new Error("usage: node check.mjs ADDRESS PROFILE INPUTS.json [RUNS]");
  const texts = JSON.parse(await readFile(inputs, "utf-8"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: browserProgram(),
    args: ["--disable-background-networking", "--disable-component-update"],
  });
  try {
    console.log(JSON.stringify(await visit(context, address, texts, Number(runs))));
  } finally {
    await context.close();
  }
}

/** What a visitor sees: the form's own answer to the first text, then the rest through the page. */
async function visit(context, address, texts, runs) {
  const page = await context.newPage();
  const said = [];
  const requests = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) said.push(message.text());
  });
  page.on("pageerror", (error) => said.push(error.message));
  context.on("request", (request) => requests.push(request.url()));
  await page.goto(address);
  const opened = page.waitForFunction(() => globalThis.demo !== undefined, null, { timeout: READY_MS });
  const failed = page.getByText("The model cannot be opened").waitFor({ timeout: READY_MS });
  await Promise.race([opened, failed.catch(() => undefined)]);
  if (await page.evaluate(() => globalThis.demo === undefined)) {
    return { status: await page.textContent("#status"), said, requests };
  }
  const fields = await page.locator("textarea:visible").count();
  const [first, second] = [texts[0]].flat();
  await page.fill("#first", first);
  if (second !== undefined) await page.fill("#second", second);
  await page.click("#classify");
  await page.waitForFunction(() => document.querySelector("#status").textContent.startsWith("Label"));
  const status = await page.textContent("#status");
  const answers = await page.evaluate(async (inputs) => {
    const results = [];
    for (const input of inputs) results.push(await demo.classifier.classify(input));
    return results;
  }, texts);
  const latency = await measured(context, page, runs);
  await page.evaluate(() => demo.updated);
  const outside = requests.filter((url) => !url.startsWith(address) && !url.startsWith("data:"));
  return { status, fields, answers, latency, said, requests: requests.length, outside };
}

/** The page's own measurement, and what the same runs took of one core: on a busy machine less. */
async function measured(context, page, runs) {
  const session = await context.newCDPSession(page);
  await session.send("Performance.enable");
  await page.evaluate(() => demo.measure(20));
  const before = await threadSeconds(session);
  const latency = await page.evaluate((count) => demo.measure(count, 0), runs);
  const seconds = (await threadSeconds(session)) - before;
  return { ...latency, cpu: (1000 * seconds) / runs };
}

async function threadSeconds(session) {
  const { metrics } = await session.send("Performance.getMetrics");
  return metrics.find(({ name }) => name === "ThreadTime").value;
}

function browserProgram() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  try {
    return execFileSync("which", ["chromium"], { encoding: "utf-8" }).trim();
  } catch {
    throw new Error("no program named chromium; install one, or set CHROMIUM to its path");
  }
}

main().catch((error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
});
