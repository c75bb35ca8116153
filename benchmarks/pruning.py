"""Real students with fewer feed-forward neurons: size, accuracy, agreement, CPU time.

    FACTORY_REAL_DATA=... python benchmarks/pruning.py --work FOLDER \
        --student sst2-sentences STORE/distill-... --student banking77 STORE/distill-...

Each folder is the distill stage's directory in a store that also holds its data, teacher and
unlabelled text. The student is pruned to several numbers of neurons, without training afterwards
and with it, exported and quantized as the factory does, and scored on test, or on dev where there
is no test. Students with fewer heads, which only transformers 4 can store, are timed too, to tell
what they would bring. CPU time is of one thread, all files of a set interleaved.
Prints a table per set and writes benchmarks/pruning.json. Pruned students stay in --work.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from logit_error import compare_logits
from quantized_forms import SHAPES, cpu_times
from real_data import real_data_folder

from factory.data.dataset import Dataset, read_dataset
from factory.data.unlabelled import read_unlabelled
from factory.distill.losses import teacher_loss
from factory.distill.prune import prune, strongest, taylor_importance
from factory.distill.transfer_set import LOGITS_FILE
from factory.export.forms import FormSource
from factory.export.forms import write_forms as write_every_form
from factory.export.onnx import export_onnx
from factory.export.parity import open_session, session_logits
from factory.models.classifier import TorchClassifier, load_torch_classifier
from factory.models.encoding import encode_inputs
from factory.recipe.training import DistillSettings, PruneSettings
from factory.store import ARTIFACT_FILE, directory_name, read_json

RESULT_FILE = Path(__file__).with_suffix(".json")
FORMS = ("fp32", "int8-static")
HEADS = (8, 6)
CALIBRATION_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One distilled student and what it was made of."""

    directory: Path
    teacher: Path
    dataset: Dataset
    unlabelled: list[Any] | None
    settings: DistillSettings
    max_length: int


def main() -> None:
    """Measure every student given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", nargs=2, action="append", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--neurons", type=int, nargs="+", default=[900, 600, 300])
    parser.add_argument("--epochs", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    real_data_folder()  # tokenized copies of it are in the stores
    results = json.loads(RESULT_FILE.read_text()) if RESULT_FILE.is_file() else {}
    for name, folder in arguments.student:
        results[name] = measure_set(open_line(Path(folder)), arguments.work / name, arguments)
        print_set(name, results[name])
        RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")


def open_line(directory: Path) -> Line:
    """The student's data, text and settings, found beside it in its store."""
    record = read_json(directory / ARTIFACT_FILE)
    inputs = {
        stage: directory.parent / directory_name(stage, fingerprint)
        for stage, fingerprint in record["inputs"].items()
    }
    more = list(read_unlabelled(inputs["unlabelled"])) if "unlabelled" in inputs else None
    return Line(
        directory,
        inputs["teacher"] / "model",
        read_dataset(inputs["data"]),
        more,
        DistillSettings.model_validate(record["settings"]["distill"]),
        record["settings"]["data"]["max_length"],
    )


def measure_set(line: Line, work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All students of one set."""
    folders = {"distilled": line.directory / "model"}
    for neurons in arguments.neurons:
        for epochs in arguments.epochs:
            settings = PruneSettings(
                neurons=neurons, epochs=epochs, learning_rate=arguments.learning_rate
            )
            name = f"{neurons} neurons, {epochs:g} epochs"
            folders[name] = prune_once(line, work / f"{neurons}-{epochs:g}", settings)
    for heads in HEADS:
        folders[f"{heads} heads"] = prune_heads(line, work / f"{heads}-heads", heads)
    split = line.dataset.test or line.dataset.dev
    students, files = {}, {}
    for name, folder in folders.items():
        forms = write_forms(line, folder, work / "onnx" / name)
        students[name] = score(line, folder, forms)
        files.update({f"{name}/{form}": file for form, file in forms.items()})
    expected = students["distilled"]["fp32"].pop("logits")
    for student in students.values():
        for form in student.values():
            logits = form.pop("logits", expected)
            form["against distilled"] = asdict(compare_logits(logits, expected))
    for shape, found in cpu_times(files, arguments.rounds).items():
        for name, milliseconds in found.items():
            student, _, form = name.rpartition("/")
            students[student][form].setdefault("milliseconds", {})[shape] = milliseconds
    return {"split": split.name, "rows": len(split), "threads": 1, "students": students,
            "learning_rate": arguments.learning_rate}  # fmt: skip


def prune_once(line: Line, directory: Path, settings: PruneSettings) -> Path:
    """A pruned student's folder, made unless it is there."""
    if not (directory / "facts.json").is_file():
        directory.mkdir(parents=True, exist_ok=True)
        facts = prune(
            directory,
            line.directory,
            load_torch_classifier(line.directory / "model", line.max_length),
            load_torch_classifier(line.teacher, line.max_length),
            line.dataset.train,
            settings,
            line.settings,
            None,
            line.unlabelled,
        )
        (directory / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    return directory / "model"


def prune_heads(line: Line, directory: Path, count: int) -> Path:
    """The student with the most important heads of each layer, as transformers 4 stores it."""
    student = load_torch_classifier(line.directory / "model", line.max_length)
    inputs = [*line.dataset.train.inputs(), *(line.unlabelled or ())]
    rows = np.linspace(0, len(inputs) - 1, CALIBRATION_ROWS).astype(int)
    layers = student.model.bert.encoder.layer
    heads = student.model.config.num_attention_heads
    importance = taylor_importance(
        student.model,
        [layer.attention.self for layer in layers],
        heads,
        encode_inputs(student.tokenizer, [inputs[row] for row in rows], line.max_length),
        np.load(line.directory / LOGITS_FILE)[rows],
        teacher_loss(student.model, 1.0),
        "cpu",
    )
    kept = strongest(importance, count)
    gone = {
        layer: sorted({*range(heads)} - {*kept[layer].tolist()}) for layer in range(len(layers))
    }
    student.model.prune_heads(gone)
    student.model.save_pretrained(directory)
    student.tokenizer.save_pretrained(directory)
    return directory


def write_forms(line: Line, model: Path, directory: Path) -> dict[str, Path]:
    """The ONNX files of one student by form."""
    directory.mkdir(parents=True, exist_ok=True)
    files = {form: directory / f"{form}.onnx" for form in FORMS}
    export_onnx(model, files["fp32"], opset=17)
    student = load_torch_classifier(model, line.max_length)
    source = FormSource(
        files["fp32"], student, line.dataset.train, 256, smoothing=0.8, seven_bits=True
    )
    write_every_form(directory, ["int8-static"], source)
    return files


def score(line: Line, model: Path, files: dict[str, Path]) -> dict[str, Any]:
    """Accuracy, and agreement of the integer form with the float one."""
    split = line.dataset.test or line.dataset.dev
    student: TorchClassifier = load_torch_classifier(model, line.max_length)
    rows = encode_inputs(student.tokenizer, split.inputs(), line.max_length)
    logits = {
        form: session_logits(open_session(file, threads=1), rows, batch_size=8)
        for form, file in files.items()
    }
    return {
        form: {
            "megabytes": files[form].stat().st_size / 1e6,
            "parameters": sum(one.numel() for one in student.model.parameters()),
            "accuracy": float((found.argmax(axis=1) == np.array(split.targets)).mean()),
            "against fp32": asdict(compare_logits(found, logits["fp32"])),
            "logits": found,
        }
        for form, found in logits.items()
    }


def print_set(name: str, result: dict[str, Any]) -> None:
    """A Markdown table; times as how many times faster than the distilled student's fp32."""
    cells = [f"{batch}x{length}" for batch, length in SHAPES]
    print(
        f"\n{name} {result['split']}, {result['rows']} rows; speed against the distilled fp32, "
        "1 thread\n"
    )
    print(f"| student | form | MB | accuracy | labels as distilled fp32 | {' | '.join(cells)} |")
    print("|---" * (5 + len(cells)) + "|")
    base = result["students"]["distilled"]["fp32"]["milliseconds"]
    for student, forms in result["students"].items():
        for form, found in forms.items():
            speeds = [f"{base[cell] / found['milliseconds'][cell]:.2f}" for cell in cells]
            print(
                f"| {student} | {form} | {found['megabytes']:.1f} | {found['accuracy']:.2%} | "
                f"{found['against distilled']['agreement']:.2%} | {' | '.join(speeds)} |"
            )


if __name__ == "__main__":
    main()
