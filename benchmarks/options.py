"""What each option of task distillation gives on the quickstart's messages, one at a time.

    python benchmarks/options.py [--options temperature-4 ema ...] [--store runs]

Every option starts from the same derived student and takes one epoch of each phase (unless steps
are the option). Scored on dev: accuracy, and against the teacher, which tells students apart that
420 rows of annotations cannot, the mean KL divergence of the student's answers from the teacher's
and the share of equal answers. Prints a table and writes options.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from two_phases import train_both

from factory.data.dataset import Split, read_dataset
from factory.distill.layer_map import map_layers
from factory.distill.student import StudentStart, start_student
from factory.distill.transfer import transfer_set
from factory.models.classifier import TorchClassifier, load_torch_classifier
from factory.pipeline import run
from factory.planning import make_plan
from factory.recipe.file import load_recipe
from factory.recipe.training import DistillSettings, StudentSettings
from factory.runtime.environment import keep_freed_memory
from factory.store import Store

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "quickstart.toml"
RESULT_FILE = Path(__file__).with_suffix(".json")
BASE: Mapping[str, Any] = {
    "intermediate": {"epochs": 1.0, "learning_rate": 6e-4},
    "prediction": {"epochs": 1.0, "learning_rate": 3e-5},
}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "base": {},
    "another seed": {"seed": 7},
    "temperature 2": {"prediction": {"temperature": 2.0}},
    "temperature 4": {"prediction": {"temperature": 4.0}},
    "temperature 8": {"prediction": {"temperature": 8.0}},
    "prediction rate 1e-4": {"prediction": {"learning_rate": 1e-4}},
    "intermediate rate 1e-4": {"intermediate": {"learning_rate": 1e-4}},
    "intermediate rate 2e-4": {"intermediate": {"learning_rate": 2e-4}},
    "intermediate rate 3e-4": {"intermediate": {"learning_rate": 3e-4}},
    "intermediate rate 1.2e-3": {"intermediate": {"learning_rate": 1.2e-3}},
    "both rates 1e-4": {
        "intermediate": {"learning_rate": 1e-4},
        "prediction": {"learning_rate": 1e-4},
    },
    "twice the steps": {"intermediate": {"epochs": 2.0}, "prediction": {"epochs": 2.0}},
    "twice the steps, intermediate rate 2e-4": {
        "intermediate": {"epochs": 2.0, "learning_rate": 2e-4},
        "prediction": {"epochs": 2.0},
    },
    "half the steps": {"intermediate": {"epochs": 0.5}, "prediction": {"epochs": 0.5}},
    "batches of 16": {"batch_size": 16},
    "no attention loss": {"intermediate": {"attention_weight": 0.0}},
    "attention loss x 0.1": {"intermediate": {"attention_weight": 0.1}},
    "no embedding loss": {"intermediate": {"embedding_weight": 0.0}},
    "last layer x 4": {"intermediate": {"layer_weights": [1.0, 1.0, 1.0, 1.0, 4.0]}},
    "sum over heads": {"intermediate": {"head_reduction": "sum"}},
    "relations": {"intermediate": {"attention": "relations"}},
    "no intermediate phase": {"intermediate": {"epochs": 0.0}, "prediction": {"epochs": 2.0}},
}


def main() -> None:
    """Run every option asked for and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--options", nargs="+", default=tuple(OPTIONS), choices=tuple(OPTIONS))
    parser.add_argument("--store", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    keep_freed_memory()
    recipe = load_recipe(RECIPE)
    store = Store(arguments.store)
    made = run(recipe, RECIPE.parent, store, "cpu", until="teacher")
    data = store.directory(make_plan(recipe, RECIPE.parent).keys["data"])
    dataset = read_dataset(data)
    teacher = load_torch_classifier(made / "model", recipe.data.max_length)
    teacher.model.requires_grad_(False)
    settings = DistillSettings()
    train = dataset.train.inputs()
    transfer = transfer_set(train, None, None, teacher.tokenizer, teacher.max_length)
    shape = StudentSettings()
    layer_map = map_layers("uniform", shape.layers, teacher.model.config.num_hidden_layers)
    start = start_student(shape, None, teacher, layer_map, transfer.rows, settings.seed)
    logits = teacher.logits(transfer.inputs)
    results = json.loads(RESULT_FILE.read_text()) if RESULT_FILE.is_file() else {}
    for name in arguments.options:
        mine = StudentStart(copy.deepcopy(start.model), copy.deepcopy(start.projections))
        points: list[dict[str, float]] = []
        began = time.process_time()
        train_both(
            teacher,
            logits,
            transfer,
            mine,
            layer_map,
            merged(OPTIONS[name]),
            lambda steps, mine=mine, points=points: points.append(
                {"steps": steps, **against(teacher, mine, dataset.dev)}
            ),
        )
        results[name] = {"points": points, "cpu_seconds": time.process_time() - began}
        RESULT_FILE.write_text(json.dumps(results, indent=2) + "\n")
    print_table(results)


def merged(option: Mapping[str, Any]) -> DistillSettings:
    """The base settings with one option."""
    tree = {key: {**value, **option.get(key, {})} for key, value in BASE.items()}
    return DistillSettings.model_validate({**option, **tree})


def against(teacher: TorchClassifier, start: StudentStart, dev: Split) -> dict[str, float]:
    """Accuracy on dev, and how near the answers are to the teacher's."""
    student = TorchClassifier(start.model, teacher.tokenizer, teacher.max_length)
    wanted, found = teacher.logits(dev.inputs()), student.logits(dev.inputs())
    log_wanted, log_found = log_softmax(wanted), log_softmax(found)
    divergence = (np.exp(log_wanted) * (log_wanted - log_found)).sum(axis=1).mean()
    answers = found.argmax(axis=1)
    return {
        "accuracy": float((answers == np.array(dev.targets)).mean()),
        "divergence": float(divergence),
        "agreement": float((answers == wanted.argmax(axis=1)).mean()),
    }


def log_softmax(logits: Any) -> Any:
    """Logarithm of the probabilities of each row."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def print_table(results: Mapping[str, Any]) -> None:
    """One line per option, at the end of both phases."""
    print("| option | steps | accuracy | KL from the teacher | agreement | CPU s |")
    print("|---|---|---|---|---|---|")
    for name, found in results.items():
        end = found["points"][-1]
        print(
            f"| {name} | {end['steps']} | {end['accuracy']:.4f} | {end['divergence']:.4f} "
            f"| {end['agreement']:.4f} | {found['cpu_seconds']:.0f} |"
        )


if __name__ == "__main__":
    main()
