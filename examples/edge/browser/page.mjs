// Opens the bundle on one WASM thread, answers the form, measures.

import { openClassifier } from "./classifier.mjs";
import * as ort from "./ort.mjs";
import { Tokenizer } from "./tokenizers.mjs";

const SHOWN = 10;
const TOKENS = 32;
const element = (id) => document.getElementById(id);

/** Bytes of a file of this page's version: those the service worker keeps, or the server's. */
async function read(path) {
  const kept = await globalThis.caches?.open(`classifier-${LISTING.version}`);
  const response = (await kept?.match(path)) ?? (await fetch(path));
  if (!response.ok) throw new Error(`${path}: the server answered ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function open() {
  if (navigator.serviceWorker) {
    await navigator.serviceWorker.register("service-worker.js", { updateViaCache: "none" });
    await navigator.serviceWorker.ready; // now it keeps all files, and none is loaded twice
  }
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = (await read("ort.wasm")).buffer;
  return openClassifier({
    ort,
    Tokenizer,
    read: (path) => read(`bundle/${path}`),
    file: LISTING.model,
    options: { executionProviders: ["wasm"], logSeverityLevel: 3 },
  });
}

/** Latency of a text of 32 tokens, from text to label: milliseconds. */
async function measure(classifier, runs = 200, warmUp = 20) {
  const pair = classifier.manifest.text_pair;
  const words = new Array(TOKENS - (pair ? 4 : 2)).fill("a").join(" ");
  const input = pair ? [words, "a"] : words;
  const times = [];
  for (let run = 0; run < warmUp + runs; run += 1) {
    const start = performance.now();
    await classifier.classify(input);
    if (run >= warmUp) times.push(performance.now() - start);
  }
  times.sort((one, other) => one - other);
  const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
  const tokens = classifier.encode(input).ids.length;
  return { tokens, runs, p50: at(0.5), p95: at(0.95), least: times[0] };
}

function show({ label, scores }) {
  const rows = Object.entries(scores).sort((one, other) => other[1] - one[1]);
  const chosen = new Set([label].flat());
  element("answer").replaceChildren(...rows.slice(0, SHOWN).map((row) => tableRow(...row, chosen)));
  element("status").textContent = `Label: ${[...chosen].join(", ") || "none"}`;
}

function tableRow(name, score, chosen) {
  const row = document.createElement("tr");
  row.className = chosen.has(name) ? "chosen" : "";
  const bar = document.createElement("meter");
  bar.value = score;
  row.insertCell().textContent = name;
  row.insertCell().append(bar);
  const number = row.insertCell();
  number.className = "number";
  number.textContent = score.toFixed(3);
  return row;
}

function connect(classifier) {
  const pair = classifier.manifest.text_pair;
  element("name").textContent = classifier.manifest.name;
  element("pair").hidden = !pair;
  element("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const texts = [element("first").value, element("second").value];
    show(await classifier.classify(pair ? texts : texts[0]));
  });
  element("measure").addEventListener("click", async () => {
    const { tokens, runs, p50, p95 } = await measure(classifier);
    element("status").textContent =
      `${tokens} tokens, ${runs} runs: p50 ${p50.toFixed(1)} ms, p95 ${p95.toFixed(1)} ms`;
  });
  for (const id of ["classify", "measure"]) element(id).disabled = false;
  element("status").textContent = "Ready";
}

/** Fetch another version, if there is one, for the next visit. Without a network there is none. */
async function update() {
  const registration = await navigator.serviceWorker?.getRegistration();
  await registration?.update().catch(() => undefined);
  const worker = registration?.installing;
  await (worker && new Promise((done) => worker.addEventListener("statechange", done, { once: true })));
}

try {
  const classifier = await open();
  connect(classifier);
  const updated = update();
  globalThis.demo = { classifier, updated, measure: (...counts) => measure(classifier, ...counts) };
} catch (error) {
  element("status").textContent = `The model cannot be opened: ${error.message}`;
  throw error;
}
