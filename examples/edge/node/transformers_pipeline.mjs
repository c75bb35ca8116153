// node transformers_pipeline.mjs BUNDLE DTYPE TEXT ...
// transformers.js opens the bundle as it is: no name of ours, only the ecosystem's layout.
// DTYPE: fp32 reads onnx/model.onnx, q8 onnx/model_quantized.onnx, fp16 and q4 their files.

import { basename, dirname, resolve } from "node:path";

import { env, pipeline } from "@huggingface/transformers";

const [bundle, dtype, ...texts] = process.argv.slice(2);
if (bundle === undefined || texts.length === 0) {
  console.error("usage: node transformers_pipeline.mjs BUNDLE DTYPE TEXT ...");
  process.exit(2);
}
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(bundle));
const classify = await pipeline("text-classification", basename(resolve(bundle)), { dtype });
for (const text of texts) {
  const answers = await classify(text, { top_k: null });
  const scores = Object.fromEntries(answers.map(({ label, score }) => [label, score]));
  console.log(JSON.stringify({ label: answers[0].label, scores }));
}
await classify.dispose();
