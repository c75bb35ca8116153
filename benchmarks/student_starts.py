"""How far a student comes from each start with the same steps.

    FACTORY_REAL_DATA=... python benchmarks/student_starts.py [--sets banking77] [--store runs]

Uses the teacher of recipes/<set>.toml (made when it is not in the store), its labelled rows alone
and one schedule for all starts: 2 intermediate epochs at 6e-4, 1 prediction epoch at 1e-4. Scores
dev before training, after the intermediate phase (without meaning for a random classifier, which
that phase does not train) and after the prediction phase. Prints a table and writes
student_starts.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from real_data import real_data_folder

from factory import pipeline
from factory.data.dataset import Dataset, read_dataset
from factory.distill.matching import map_layers
from factory.distill.student import start_student
from factory.distill.tinybert import IntermediateLoss, train_on_logits
from factory.distill.transfer_set import (
    DistillationData,
    intermediate_phase,
    prediction_phase,
    transfer_set,
)
from factory.evaluation.evaluate import evaluate
from factory.models.classifier import TorchClassifier, load_torch_classifier
from factory.planning import make_plan
from factory.recipe.file import load_recipe
from factory.recipe.training import (
    DistillSettings,
    IntermediateSettings,
    PredictionSettings,
    StudentSettings,
)
from factory.runtime.environment import keep_freed_memory
from factory.store import Store
from factory.training.embedding_subset import embedding_subset
from factory.training.trainer import total_steps, train

ROOT = Path(__file__).resolve().parent.parent
SETS = ("sst2-sentences", "banking77")
STARTS = ("teacher", "random")
RESULT_FILE = Path(__file__).with_suffix(".json")
SETTINGS = DistillSettings(
    intermediate=IntermediateSettings(epochs=2.0, learning_rate=6e-4),
    prediction=PredictionSettings(epochs=1.0, learning_rate=1e-4),
)


def main() -> None:
    """Run every set asked for and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    real_data = real_data_folder()
    keep_freed_memory()
    results = json.loads(RESULT_FILE.read_text()) if RESULT_FILE.is_file() else {}
    for name in arguments.sets:
        teacher, dataset = teacher_of(name, real_data / name, arguments.store)
        best = evaluate(teacher, dataset.dev, dataset.labels).scores["accuracy"].value
        curves = {start: curve(start, teacher, dataset) for start in STARTS}
        results[name] = {"rows": len(dataset.dev), "teacher": best, "curves": curves}
        print_set(name, results[name])
        RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")


def teacher_of(name: str, data: Path, store: Path) -> tuple[TorchClassifier, Dataset]:
    """The teacher and the data of a recipe, made by a run when they are not there."""
    recipe_file = ROOT / "recipes" / f"{name}.toml"
    files = {split: data / f"{split}.tsv" for split in ("train", "dev", "test")}
    settings = [f"data.{split}={file}" for split, file in files.items() if file.is_file()]
    settings += [f"data.unlabelled={files['dev']}"] if name == "sst2-sentences" else []
    recipe = load_recipe(recipe_file, settings)
    folder = pipeline.run(recipe, recipe_file.parent, Store(store), until="teacher")
    teacher = load_torch_classifier(folder / "model", recipe.data.max_length)
    teacher.model.requires_grad_(False)
    data_key = make_plan(recipe, recipe_file.parent, "teacher").keys["data"]
    return teacher, read_dataset(Store(store).directory(data_key))


def curve(start: str, teacher: TorchClassifier, dataset: Dataset) -> list[dict[str, Any]]:
    """Dev accuracy against optimizer steps."""
    labelled = dataset.train.inputs()
    transfer = transfer_set(labelled, None, None, teacher.tokenizer, teacher.max_length)
    shape = StudentSettings(start=start)
    depth = teacher.model.config.num_hidden_layers
    layer_map = map_layers(SETTINGS.layer_map, shape.layers, depth)
    begun = start_student(shape, None, teacher, layer_map, transfer.rows, SETTINGS.seed)
    student = TorchClassifier(begun.model, teacher.tokenizer, teacher.max_length)
    points: list[dict[str, Any]] = []

    def scored(steps: int) -> None:
        found = evaluate(student, dataset.dev, dataset.labels).scores["accuracy"].value
        points.append({"steps": steps, "accuracy": found})

    everything = np.arange(len(transfer.rows))
    logits = teacher.logits(transfer.inputs)
    data = DistillationData(teacher, transfer, logits, everything, everything[:0])
    first, second = intermediate_phase(SETTINGS), prediction_phase(SETTINGS)
    steps = total_steps(first, len(transfer.rows))
    scored(0)
    with tempfile.TemporaryDirectory() as scratch:
        with embedding_subset(transfer.rows, begun.model, teacher.model):
            loss = IntermediateLoss(begun, teacher.model, layer_map, SETTINGS.intermediate)
            train(first, loss, transfer.rows, Path(scratch, "intermediate"), "cpu")
        begun.model.eval()
        scored(steps)
        with embedding_subset(transfer.rows, begun.model):
            temperature = SETTINGS.prediction.temperature
            train_on_logits(second, begun.model, data, temperature, Path(scratch, "prediction"))
    scored(steps + total_steps(second, len(transfer.rows)))
    return points


def print_set(name: str, result: dict[str, Any]) -> None:
    """One line per start."""
    steps = [point["steps"] for point in result["curves"][STARTS[0]]]
    print(f"\n### {name}, dev ({result['rows']} rows), teacher {result['teacher']:.4f}\n")
    print("| start | " + " | ".join(f"{step} steps" for step in steps) + " |")
    print("|---" * (len(steps) + 1) + "|")
    for start, points in result["curves"].items():
        print(f"| {start} | " + " | ".join(f"{p['accuracy']:.4f}" for p in points) + " |")


if __name__ == "__main__":
    main()
