"""BERT-base against every form of a student: milliseconds per call, ratios, share of the peak.

    python benchmarks/inference.py --onnx fp32=model.onnx --onnx int8=quantized.onnx
        [--bundle DIR ...] [--threads 1] [--rounds 1.0] [--no-compile]

BERT-base is 12 layers of 768 with random weights: weights do not change the time of a product. It
runs as torch eager, torch compiled and ONNX fp32 (a plain export). Calls take token ids, no texts:
batch 1 and 8, 16, 32 and 128 tokens, nothing padded.

One process, all forms interleaved in an order that changes every round. Before the timed calls of
a form comes one that is not timed, so that none pays for what the one before left in the caches.
With one thread all work is on the calling thread, and its CPU time tells what a busy machine
does not blur; wall time stands beside it. With more threads only wall time is reported.

The peak is a plain product of two 1024 x 1024 matrices through the same runtime in the same
rounds, float32 and uint8 by int8; a form's share of it compares the fastest calls of both, because
medians of a busy machine can put a form above its peak. Prints tables and writes inference.json.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference_work import PEAK_SIZE, Work, count_work, peak_runners

from factory.export.onnx import export_onnx
from factory.export.parity import open_session, run_session
from factory.models.encoding import PaddedRows
from factory.runtime.environment import library_versions, machine_facts
from factory.runtime.progress import say

RESULT_FILE = Path(__file__).with_suffix(".json")
# rounds of each batch size and length, so that BERT-base takes seconds in each
CELLS = {(1, 16): 31, (1, 32): 25, (1, 128): 15, (8, 16): 11, (8, 32): 9, (8, 128): 5}
CALLS = 3  # timed per round, of every form but BERT-base
EAGER, COMPILED, BASE = "BERT-base torch eager", "BERT-base torch compiled", "BERT-base ONNX fp32"
PEAKS = {"fp32": "peak fp32", "int8": "peak int8"}

Runner = Callable[[PaddedRows], object]


@dataclass(slots=True)
class Times:
    """Milliseconds of single calls."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def fastest(self, threads: int) -> float:
        """The least time, which other work on the machine disturbs least."""
        return min(self.cpu if threads == 1 else self.wall)


def main() -> None:
    """Measure, print and record."""
    arguments = parse_arguments()
    files = student_files(arguments)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        base_file = Path(scratch) / "base.onnx"
        runners = base_runners(base_file, arguments, skipped)
        sizes = {name: path.stat().st_size for name, path in {BASE: base_file, **files}.items()}
        for name, path in files.items():
            runners[name] = session_runner(path, arguments.threads)
        times = measure(runners, arguments)
        work = {
            name: count_work(path, feed_of(make_batch(1, 128)))
            for name, path in {BASE: base_file, **files}.items()
        }
    result = summarize(times, sizes, work, arguments.threads)
    result["skipped"] = skipped
    print_tables(result, list(files))
    RESULT_FILE.write_text(json.dumps(result, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--onnx", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--bundle", action="append", default=[], type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=float, default=1.0, help="times as many rounds")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    return parser.parse_args()


def student_files(arguments: argparse.Namespace) -> dict[str, Path]:
    """ONNX files by the names they get in the tables."""
    files = {}
    for entry in arguments.onnx:
        name, _, path = entry.partition("=")
        files[name] = Path(path)
    for bundle in arguments.bundle:
        manifest = json.loads((bundle / "manifest.json").read_text())
        served = manifest["model"]
        for file in sorted((bundle / "onnx").glob("*.onnx")):
            name = served["variant"] if served["file"].endswith(file.name) else "fp32"
            files[f"{manifest['name']} {name}"] = file
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing or not files:
        raise SystemExit(f"no such file: {missing[0]}" if missing else "give --onnx or --bundle")
    return files


def base_runners(
    file: Path, arguments: argparse.Namespace, skipped: dict[str, str]
) -> dict[str, Runner]:
    """BERT-base in its three forms; why one is left out goes to `skipped`."""
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(BertConfig()).eval()
    model.save_pretrained(file.parent / "base")
    export_onnx(file.parent / "base", file, opset=17, first_token=False)
    runners = {EAGER: torch_runner(model)}
    if arguments.no_compile:
        skipped[COMPILED] = "--no-compile"
    else:
        try:
            started = time.perf_counter()
            compiled = torch_runner(torch.compile(model, dynamic=True))
            for batch_size, length in ((1, 16), (8, 32)):  # a size of 1 is compiled for itself
                compiled(make_batch(batch_size, length))
            say(f"torch.compile took {time.perf_counter() - started:.0f} s")
            runners[COMPILED] = compiled
        except Exception as error:  # no compiler, or an operator it does not know
            skipped[COMPILED] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    runners[BASE] = session_runner(file, arguments.threads)
    gc.collect()
    return runners


def torch_runner(model: Any) -> Runner:
    """Logits of a batch as a torch model gives them."""

    def run(batch: PaddedRows) -> object:
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(v) for name, v in feed_of(batch).items()}).logits

    return run


def session_runner(file: Path, threads: int) -> Runner:
    """Logits of a batch as onnxruntime gives them."""
    session = open_session(file, threads)
    return lambda batch: run_session(session, batch)


def make_batch(batch_size: int, length: int) -> PaddedRows:
    """Token ids of every vocabulary, all of them real."""
    shape = (batch_size, length)
    ids = np.random.default_rng(length).integers(0, 1000, shape)
    return PaddedRows(ids, np.zeros(shape, dtype=np.int64), np.ones(shape, dtype=np.int64))


def feed_of(batch: PaddedRows) -> dict[str, Any]:
    """The inputs by name."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: getattr(batch, name) for name in names}


def measure(
    runners: Mapping[str, Runner], arguments: argparse.Namespace
) -> dict[tuple[int, int], dict[str, Times]]:
    """Time every form at every shape; the peaks are among the forms of 128 tokens."""
    random = np.random.default_rng(0)
    peaks = {PEAKS[kind]: run for kind, run in peak_runners(arguments.threads).items()}
    results = {}
    for (batch_size, length), rounds in CELLS.items():
        batch = make_batch(batch_size, length)
        calls: dict[str, Callable[[], object]] = {
            name: functools.partial(run, batch) for name, run in runners.items()
        }
        if length == 128:
            calls.update(peaks)
        times = {name: Times() for name in calls}
        for _ in range(max(1, round(rounds * arguments.rounds))):
            for position in random.permutation(len(calls)):
                name = list(calls)[position]
                time_calls(calls[name], times[name], 1 if name.startswith("BERT") else CALLS)
        results[batch_size, length] = times
        say(f"{batch_size} x {length} measured")
    return results


def time_calls(call: Callable[[], object], times: Times, count: int) -> None:
    """One call that is not timed, then `count` that are."""
    call()
    for _ in range(count):
        wall, cpu = time.perf_counter(), time.thread_time()
        call()
        times.cpu.append(1000 * (time.thread_time() - cpu))
        times.wall.append(1000 * (time.perf_counter() - wall))


def summarize(
    times: Mapping[tuple[int, int], Mapping[str, Times]],
    sizes: Mapping[str, int],
    work: Mapping[str, Work],
    threads: int,
) -> dict[str, Any]:
    """Everything measured as JSON data."""
    peak_operations = 2 * PEAK_SIZE**3
    at_128 = times[1, 128]
    peak = {
        kind: peak_operations / at_128[name].fastest(threads) / 1e6 for kind, name in PEAKS.items()
    }
    share = {}
    for name, one in work.items():
        if one.operations is not None:
            reached = one.operations / at_128[name].fastest(threads) / 1e6
            share[name] = reached / peak["int8" if one.integer else "fp32"]
    return {
        "threads": threads,
        "measure": "CPU time of the calling thread" if threads == 1 else "wall time",
        "p50_ms": {
            f"{batch_size}x{length}": {
                name: {
                    "cpu": float(np.median(one.cpu)) if threads == 1 else None,
                    "wall": float(np.median(one.wall)),
                    "calls": len(one.wall),
                }
                for name, one in forms.items()
            }
            for (batch_size, length), forms in times.items()
        },
        "size_bytes": dict(sizes),
        "giga_operations_per_second_peak": peak,
        "operations_at_1x128": {name: one.operations for name, one in work.items()},
        "share_of_peak_at_1x128": share,
        "machine": machine_facts(),
        "versions": library_versions(),
    }


def print_tables(result: Mapping[str, Any], students: list[str]) -> None:
    """Milliseconds, how many times as fast as BERT-base, and the issue's rows, as markdown."""
    clock = "cpu" if result["threads"] == 1 else "wall"
    cells = result["p50_ms"]
    forms = [name for name in cells["1x16"] if not name.startswith("peak")]
    print(f"\nMilliseconds per call, p50 of {result['measure']}", end="")
    print(" (wall time)" if clock == "cpu" else "", end="")
    print(f", {result['threads']} thread(s); batch x tokens.\n")
    print_header(["form", *cells, "file"])
    for name in forms:
        shown = [shown_time(cells[cell][name], clock) for cell in cells]
        size = result["size_bytes"].get(name)
        print_row([name, *shown, f"{size / 1e6:.1f} MB" if size else "-"])
    for form, reason in result["skipped"].items():
        print(f"\n{form} is left out: {reason}.")
    for base in (EAGER, BASE):
        print(f"\nTimes as fast as {base}:\n")
        print_header(["form", *cells])
        for name in students:
            ratios = [cells[cell][base][clock] / cells[cell][name][clock] for cell in cells]
            print_row([name, *(f"{ratio:.1f}" for ratio in ratios)])
    print("\nShare of the machine's own peak at 1x128, in the work that is left to do:\n")
    print_header(["form", "GFLOP", "share of the peak"])
    for name, share in result["share_of_peak_at_1x128"].items():
        work = result["operations_at_1x128"][name] / 1e9
        print_row([name, f"{work:.3f}", f"{100 * share:.0f} %"])
    peak = result["giga_operations_per_second_peak"]
    print(f"\nPeak: float32 {peak['fp32']:.0f}, int8 {peak['int8']:.0f} giga-operations a second.")


def shown_time(cell: Mapping[str, Any], clock: str) -> str:
    """A cell of the first table."""
    if clock == "wall":
        return f"{cell['wall']:.2f}"
    return f"{cell['cpu']:.2f} ({cell['wall']:.2f})"


def print_header(names: list[str]) -> None:
    """The first two lines of a markdown table."""
    print_row(names)
    print_row(["---"] * len(names))


def print_row(cells: list[str]) -> None:
    """One line of a markdown table."""
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
