"""python classify.py BUNDLE TEXT ...   (a pair: one argument, a tab between the two texts)"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

bundle = Path(sys.argv[1])
manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
labels, task = manifest["labels"], manifest["task"]
tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(manifest["max_length"])
session = onnxruntime.InferenceSession(bundle / manifest["model"]["file"])
for text in sys.argv[2:]:
    encoded = tokenizer.encode(*(text.split("\t", 1) if manifest["text_pair"] else [text]))
    rows = np.array([[encoded.ids], [encoded.attention_mask], [encoded.type_ids]])
    inputs = dict(zip(("input_ids", "attention_mask", "token_type_ids"), rows, strict=True))
    scores = session.run(["logits"], inputs)[0][0].astype(float)
    if task == "classification":
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
    elif task == "multilabel":
        scores = 1 / (1 + np.exp(-scores))
    chosen = np.array(labels)[scores >= manifest.get("thresholds", scores.max())].tolist()
    answer = {"label": chosen if task == "multilabel" else chosen[0]}
    print(json.dumps(answer | {"scores": dict(zip(labels, scores.tolist(), strict=True))}))
