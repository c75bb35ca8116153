"""The raw loop that served requests are compared with: tokenize a text, run the model, softmax.

    python benchmarks/server_raw.py BUNDLE TEXTS_FILE

One thread, one text per run, no HTTP, no queue; a plain use of tokenizers and onnxruntime with the
session options the server uses, and none of the server's code. Reads a number of seconds per line
from stdin, loops over the texts for so long, and prints one JSON line: texts, cpu_seconds,
wall_seconds, and the median of the wall milliseconds of one text.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


def main() -> None:
    """Answer commands until stdin ends."""
    classify = open_bundle(Path(sys.argv[1]))
    texts = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    for text in texts[:20]:
        classify(text)
    position = 0
    for line in sys.stdin:
        milliseconds = []
        cpu_start, start = time.process_time(), time.perf_counter()
        before = start
        while before - start < float(line):
            classify(texts[position % len(texts)])
            position += 1
            after = time.perf_counter()
            milliseconds.append(1000 * (after - before))
            before = after
        result = {
            "texts": len(milliseconds),
            "cpu_seconds": time.process_time() - cpu_start,
            "wall_seconds": before - start,
            "p50_ms": float(np.median(milliseconds)),
        }
        print(json.dumps(result), flush=True)


def open_bundle(directory: Path) -> Callable[[str], dict[str, float]]:
    """A function from one text to the probability of every label."""
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(manifest["max_length"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False
    model = str(directory / manifest["model"]["file"])
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names, labels = manifest["model"]["inputs"], manifest["labels"]

    def classify(text: str) -> dict[str, float]:
        encoding = tokenizer.encode(text)
        values = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        feed = {name: np.array([values[name]], dtype=np.int64) for name in names}
        logits = session.run(["logits"], feed)[0][0].astype(np.float64)
        exponentials = np.exp(logits - logits.max())
        scores = exponentials / exponentials.sum()
        return dict(zip(labels, scores.tolist(), strict=True))

    return classify


if __name__ == "__main__":
    main()
