"""Short and long texts for the benchmarks of the server, and a free port."""

from __future__ import annotations

import csv
import json
import socket
from pathlib import Path

from real_data import real_data_folder
from tokenizers import Tokenizer

SHORT_TOKENS = range(18, 26)
LONG_WORDS = 200
TEXTS = 512


def write_texts(scratch: Path, bundle: Path) -> dict[str, Path]:
    """Short and long texts for one bundle, as JSON lists in files."""
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    source = real_data_folder() / "sst2-sentences" / "train.tsv"
    with source.open(encoding="utf-8", newline="") as lines:
        sentences = [row["text"] for row in csv.DictReader(lines, delimiter="\t")]
    counted = ((text, len(tokenizer.encode(text).ids)) for text in sentences)
    short = [text for text, tokens in counted if tokens in SHORT_TOKENS][:TEXTS]
    words = " ".join(sentences).split()
    long = [" ".join(words[at : at + LONG_WORDS]) for at in range(0, 100 * 64, 100)]
    files = {}
    for kind, texts in (("short", short), ("long", long)):
        files[kind] = scratch / f"{bundle.name}-{kind}.json"
        files[kind].write_text(json.dumps(texts), encoding="utf-8")
    return files


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
