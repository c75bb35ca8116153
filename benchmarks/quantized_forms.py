"""Quantized forms of real students: size, accuracy, agreement with fp32, and CPU time.

    FACTORY_REAL_DATA=... python benchmarks/quantized_forms.py \
        --student sst2-sentences FOLDER dev --student banking77 FOLDER test

FOLDER is a distilled student in Hugging Face format (`distill-*/model` in a store). It is exported
as the factory does, quantized with 256 calibration rows of train, and scored on every row of the
split. CPU time is of one thread, all forms interleaved; the medians are compared with fp32 ONNX.
Prints a table per student and writes benchmarks/quantized_forms.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from logit_error import compare_logits
from onnxruntime.quantization import QuantType, quantize_dynamic
from real_data import real_data_folder
from transformers import AutoTokenizer

from factory.export.onnx import export_onnx
from factory.export.parity import open_session, run_session, session_logits
from factory.export.quantize.activation_ranges import measure_activations
from factory.export.quantize.form import IntegerForm
from factory.export.quantize.write import write_integer
from factory.models.encoding import EncodedRows, PaddedRows, encode_inputs

RESULT_FILE = Path(__file__).with_suffix(".json")
MAX_LENGTH = 64
CALIBRATION_ROWS = 256
SHAPES = ((1, 16), (1, 32), (1, 128))
DYNAMIC = "onnxruntime, dynamic"

FORMS: dict[str, IntegerForm] = {
    "static": IntegerForm("static"),
    "static, smoothed": IntegerForm("static", smoothing=0.8),
    "static, smoothed, 7 bits": IntegerForm("static", smoothing=0.8, seven_bits=True),
    "per token": IntegerForm("rows"),
    "per token, 7 bits": IntegerForm("rows", seven_bits=True),
    "tables only": IntegerForm(None),
    "4 bits": IntegerForm("static", bits=4, smoothing=0.8),
    "4 bits, products of 7 bits": IntegerForm("static", bits=4, smoothing=0.8, seven_bits=True),
}


def main() -> None:
    """Measure every student given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--student", nargs=3, action="append", required=True, metavar=("SET", "FOLDER", "SPLIT")
    )
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    data = real_data_folder()
    results = json.loads(RESULT_FILE.read_text()) if RESULT_FILE.is_file() else {}
    for name, folder, split in arguments.student:
        results[name] = measure_student(data / name, Path(folder), split, arguments)
        print_student(name, results[name])
        RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")


def measure_student(
    data: Path, model: Path, split: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """All forms of one student on one split."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    label_ids = json.loads((model / "config.json").read_text())["label2id"]
    texts, labels = read_rows(data / f"{split}.tsv")
    rows = encode_inputs(tokenizer, texts, MAX_LENGTH)
    targets = np.array([label_ids[label] for label in labels])
    train, _ = read_rows(data / "train.tsv")
    chosen = np.random.default_rng(0).permutation(len(train))[:CALIBRATION_ROWS]
    calibration = encode_inputs(tokenizer, [train[row] for row in chosen], MAX_LENGTH)
    with tempfile.TemporaryDirectory() as scratch:
        files = write_forms(Path(scratch), model, calibration, arguments.forms)
        expected = session_logits(open_session(files["fp32"], threads=1), rows, batch_size=8)
        forms = {}
        for name, file in files.items():
            # one text at a time where the neighbours change the answer
            alone = name == DYNAMIC
            session = open_session(file, threads=1)
            logits = session_logits(session, rows, batch_size=1 if alone else 8)
            forms[name] = {
                "megabytes": file.stat().st_size / 1e6,
                "accuracy": float((logits.argmax(axis=1) == targets).mean()),
                **asdict(compare_logits(logits, expected)),
            }
        times = cpu_times(files, arguments.rounds)
    for name, form in forms.items():
        form["milliseconds"] = {cell: found[name] for cell, found in times.items()}
    return {"split": split, "rows": len(rows), "threads": 1, "forms": forms}


def read_rows(file: Path) -> tuple[list[str], list[str]]:
    """Texts and label names of a file with the columns text and label."""
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["text"] for row in rows], [row["label"] for row in rows]


def write_forms(
    scratch: Path, model: Path, calibration: EncodedRows, names: list[str]
) -> dict[str, Path]:
    """fp32, onnxruntime's own dynamic quantization of it, and our forms."""
    files = {name: scratch / f"{number}.onnx" for number, name in enumerate(["fp32", *names])}
    export_onnx(model, files["fp32"], opset=17, first_token=True)
    files[DYNAMIC] = scratch / "dynamic.onnx"
    quantize_dynamic(files["fp32"], files[DYNAMIC], weight_type=QuantType.QInt8, per_channel=True)
    statistics = measure_activations(files["fp32"], calibration)
    for name in names:
        write_integer(files["fp32"], files[name], FORMS[name], statistics)
    return files


def cpu_times(files: dict[str, Path], rounds: int) -> dict[str, dict[str, float]]:
    """Median CPU milliseconds of one run per shape and form."""
    sessions = {name: open_session(file, threads=1) for name, file in files.items()}
    random = np.random.default_rng(0)
    found: dict[str, dict[str, float]] = {}
    for batch_size, length in SHAPES:
        ids = random.integers(1000, 30000, (batch_size, length))
        batch = PaddedRows(ids, np.zeros_like(ids), np.ones_like(ids))
        runs = max(1, 96 // length)
        taken: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(rounds):
            for name in random.permutation(list(sessions)):
                run_session(sessions[name], batch)  # brings its weights into the caches
                start = time.thread_time()
                for _ in range(runs):
                    run_session(sessions[name], batch)
                taken[name].append((time.thread_time() - start) / runs * 1e3)
        found[f"{batch_size}x{length}"] = {
            name: float(np.median(values)) for name, values in taken.items()
        }
    return found


def print_student(name: str, result: dict[str, Any]) -> None:
    """A Markdown table; times as how many times faster than fp32."""
    cells = [f"{batch}x{length}" for batch, length in SHAPES]
    print(f"\n{name} {result['split']}, {result['rows']} rows; speed against fp32 ONNX, 1 thread\n")
    print(f"| form | MB | accuracy | agreement | mean, max difference | {' | '.join(cells)} |")
    print("|---" * (5 + len(cells)) + "|")
    base = result["forms"]["fp32"]["milliseconds"]
    for form, found in result["forms"].items():
        speeds = [f"{base[cell] / found['milliseconds'][cell]:.2f}" for cell in cells]
        print(
            f"| {form} | {found['megabytes']:.1f} | {found['accuracy']:.2%} | "
            f"{found['agreement']:.2%} | {found['mean_difference']:.3f}, "
            f"{found['largest_difference']:.2f} | {' | '.join(speeds)} |"
        )


if __name__ == "__main__":
    main()
