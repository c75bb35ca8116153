"""What training with rounded numbers does to a real student's integer form.

    FACTORY_REAL_DATA=... python benchmarks/quantization_aware.py --work FOLDER \
        --student sst2-sentences STORE/distill-...

The student as distilled, after some more of the prediction phase in float, and after as much of it
with rounded weights and activations: accuracy of fp32 and of the integer form that ships, and how
near the second is to the first. Prints a table and writes benchmarks/quantization_aware.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from pruning import Line, open_line
from real_data import real_data_folder

from factory.distill.lesson import Lesson, make_lesson
from factory.distill.phase import Phase
from factory.distill.phases import prediction_phase
from factory.distill.quantization_aware import roundings_of, train_rounded
from factory.export.onnx import export_onnx
from factory.export.quantize.calibration import (
    ActivationRanges,
    activation_ranges,
    measure_activations,
)
from factory.export.quantize.form import IntegerForm
from factory.export.quantize.sensitivity import compare_logits
from factory.export.quantize.write import write_integer
from factory.export.session import open_session, session_logits
from factory.export.variants import calibration_rows
from factory.models.classifier import load_torch_classifier
from factory.models.encoding import encode_inputs

RESULT_FILE = Path(__file__).with_suffix(".json")
CALIBRATION_ROWS = 256
# as `int8-static` for avx2, whose weights have 7 bits; training rounds as the second does
FORMS = {
    "int8-static": IntegerForm(
        "static", "int4", compensated=True, smoothing=0.8, precise_rows=16_384, reduced_range=True
    ),
    "rounded to nearest": IntegerForm(
        "static", "int4", smoothing=0.8, precise_rows=16_384, reduced_range=True
    ),
}


def main() -> None:
    """Measure every student given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", nargs=2, action="append", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=0.3)
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    arguments = parser.parse_args()
    real_data_folder()  # tokenized copies of it are in the stores
    results = json.loads(RESULT_FILE.read_text()) if RESULT_FILE.is_file() else {}
    for name, folder in arguments.student:
        results[name] = measure_set(open_line(Path(folder)), arguments.work / name, arguments)
        print_set(name, results[name])
        RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")


def measure_set(line: Line, work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The three students of one set."""
    phase = replace(
        prediction_phase(line.settings),
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
    )
    teacher = load_torch_classifier(line.teacher, line.max_length)
    student = load_torch_classifier(line.directory / "model", line.max_length)
    lesson = make_lesson(
        line.directory, teacher, student.tokenizer, line.dataset.train, line.settings, None,
        line.unlabelled,
    )  # fmt: skip
    folders = {"distilled": line.directory / "model"}
    for name in ("more in float", "more with rounded numbers"):
        folders[name] = train(line, work / name, lesson, phase, aware=name.endswith("numbers"))
    split = line.dataset.test or line.dataset.dev
    students: dict[str, Any] = {}
    original = None
    for name, folder in folders.items():
        logits = form_logits(line, folder, work / "onnx" / name)
        original = logits["fp32"] if original is None else original
        students[name] = {
            form: {
                "accuracy": float((found.argmax(axis=1) == np.array(split.targets)).mean()),
                "against fp32": asdict(compare_logits(found, logits["fp32"])),
                "against distilled": asdict(compare_logits(found, original)),
            }
            for form, found in logits.items()
        }
    return {"split": split.name, "rows": len(split), "epochs": arguments.epochs,
            "learning_rate": arguments.learning_rate, "students": students}  # fmt: skip


def train(line: Line, directory: Path, lesson: Lesson, phase: Phase, *, aware: bool) -> Path:
    """A student trained some more, unless it is there."""
    if not (directory / "model").is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        source = directory / "source.onnx"
        export_onnx(line.directory / "model", source, opset=17)
        roundings = {}
        if aware:
            form = FORMS["rounded to nearest"]
            roundings = roundings_of(source, form, calibrated(line, source))
        train_rounded(directory, line.directory / "model", roundings, lesson, phase, 1.0)
    return directory / "model"


def calibrated(line: Line, source: Path) -> ActivationRanges:
    """Ranges of the activations on training rows."""
    student = load_torch_classifier(line.directory / "model", line.max_length)
    rows = calibration_rows(student, line.dataset.train, CALIBRATION_ROWS)
    return activation_ranges(measure_activations(source, rows))


def form_logits(line: Line, model: Path, directory: Path) -> dict[str, Any]:
    """Logits of one student's forms on the split."""
    directory.mkdir(parents=True, exist_ok=True)
    source = directory / "fp32.onnx"
    export_onnx(model, source, opset=17)
    files = {"fp32": source}
    ranges = calibrated(line, source)
    for name, form in FORMS.items():
        files[name] = directory / f"{name}.onnx"
        write_integer(source, files[name], form, ranges)
    split = line.dataset.test or line.dataset.dev
    student = load_torch_classifier(model, line.max_length)
    rows = encode_inputs(student.tokenizer, split.inputs(), line.max_length)
    return {
        name: session_logits(open_session(file, threads=1), rows, batch_size=8)
        for name, file in files.items()
    }


def print_set(name: str, result: dict[str, Any]) -> None:
    """A Markdown table."""
    print(f"\n{name} {result['split']}, {result['rows']} rows; {result['epochs']:g} epochs\n")
    print("| student | form | accuracy | labels as its fp32 | mean, max difference | divergence |")
    print("|---|---|---|---|---|---|")
    for student, forms in result["students"].items():
        for form, found in forms.items():
            near = found["against fp32"]
            print(
                f"| {student} | {form} | {found['accuracy']:.2%} | {near['agreement']:.2%} | "
                f"{near['mean_difference']:.3f}, {near['largest_difference']:.2f} | "
                f"{near['divergence']:.5f} |"
            )


if __name__ == "__main__":
    main()
