// node classify.mjs BUNDLE [--file onnx/model.onnx] TEXT ...
// Prints one line of JSON per text. A pair is one argument with a tab between its texts.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { Tokenizer } from "@huggingface/tokenizers";
import * as ort from "onnxruntime-node";

import { openClassifier } from "../javascript/classifier.mjs";

async function main() {
  const { values, positionals } = parseArgs({
    options: { file: { type: "string" } },
    allowPositionals: true,
  });
  const [bundle, ...texts] = positionals;
  if (bundle === undefined || texts.length === 0) {
    throw new Error("usage: node classify.mjs BUNDLE [--file onnx/model.onnx] TEXT ...");
  }
  const classifier = await openClassifier({
    ort,
    Tokenizer,
    read: (path) => readBundleFile(bundle, path),
    file: values.file,
    options: { intraOpNumThreads: 1, logSeverityLevel: 3 },
  });
  for (const text of texts) {
    const input = classifier.manifest.text_pair ? splitPair(text) : text;
    console.log(JSON.stringify(await classifier.classify(input)));
  }
}

async function readBundleFile(bundle, path) {
  try {
    return await readFile(join(bundle, path));
  } catch (error) {
    throw new Error(`${join(bundle, path)}: cannot be read (${error.code}); give a bundle's directory`);
  }
}

/** The texts before and after the first tab. */
function splitPair(text) {
  const tab = text.indexOf("\t");
  return tab < 0 ? [text] : [text.slice(0, tab), text.slice(tab + 1)];
}

main().catch((error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
});
