// node assemble.mjs BUNDLE SITE [--file onnx/model.onnx]
// Puts page, runtime, tokenizer and model into the new folder SITE; any static server can serve it.

import { createHash } from "node:crypto";
import { access, copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const modules = join(here, "node_modules");
const PAGE = {
  "index.html": join(here, "index.html"),
  "page.mjs": join(here, "page.mjs"),
  "service-worker.js": join(here, "service-worker.js"),
  "classifier.mjs": join(here, "..", "javascript", "classifier.mjs"),
  "ort.mjs": join(modules, "onnxruntime-web", "dist", "ort.wasm.bundle.min.mjs"),
  "ort.wasm": join(modules, "onnxruntime-web", "dist", "ort-wasm-simd-threaded.wasm"),
  "tokenizers.mjs": join(modules, "@huggingface", "tokenizers", "dist", "tokenizers.min.mjs"),
};

async function main() {
  const { values, positionals } = parseArgs({
    options: { file: { type: "string" } },
    allowPositionals: true,
  });
  if (positionals.length !== 2) {
    throw new Error("usage: node assemble.mjs BUNDLE SITE [--file onnx/model.onnx]");
  }
  const [bundle, site] = positionals;
  if (await exists(site)) throw new Error(`${site}: exists already; remove it or give another folder`);
  const manifest = JSON.parse(await readFile(join(bundle, "manifest.json"), "utf-8"));
  const model = values.file ?? manifest.model.file;
  const sources = { ...PAGE };
  for (const path of ["manifest.json", "tokenizer.json", "tokenizer_config.json", model]) {
    sources[`bundle/${path}`] = join(bundle, path);
  }
  const digest = createHash("sha256");
  for (const [path, source] of Object.entries(sources)) {
    if (!(await exists(source))) throw new Error(`${source}: missing; run npm ci, or give a whole bundle`);
    await mkdir(dirname(join(site, path)), { recursive: true });
    await copyFile(source, join(site, path));
    digest.update(path).update(await readFile(source));
  }
  await writeListing(site, Object.keys(sources), model, digest.digest("hex").slice(0, 16));
}

/** The files the page needs, for the service worker to keep, and the model it opens. */
async function writeListing(site, paths, model, version) {
  const files = ["./", "listing.js", ...paths.filter((path) => path !== "service-worker.js")];
  const listing = JSON.stringify({ version, model, files }, null, 2);
  await writeFile(join(site, "listing.js"), `globalThis.LISTING = ${listing};\n`);
}

async function exists(path) {
  return access(path).then(
    () => true,
    () => false,
  );
}

main().catch((error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
});
