"""A store of a finished run, written in milliseconds from chosen model outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from helpers.minimal_recipe import recipe_tree
from helpers.scored_bundle import scored_manifest
from helpers.tiny_models import tiny_tokenizer
from msgspec import UNSET
from numpy.typing import NDArray

from factory.bundle.measurements import RunMeasurements, torch_scores
from factory.data.dataset import Dataset, Split, facts_of, write_dataset
from factory.evaluation.evaluate import evaluate_logits
from factory.evaluation.gate import check_rules, measure_student
from factory.evaluation.latency import Latency
from factory.evaluation.results import evaluations_from_facts
from factory.recipe.file import parse_recipe
from factory.store import ArtifactKey, Store
from serving.bundle import write_manifest

LOSSES = "phase,step,term,value,of_start\n" + "".join(
    f"{phase},{step},{term},{2 - step / 10},{1 - step / 20}\n"
    for phase, terms in (("intermediate", ("total", "hidden.1")), ("prediction", ("total",)))
    for step in (0, 5, 10)
    for term in terms
)


def dataset_of(
    labels: tuple[str, ...], texts: list[str], targets: list[Any], task: Any = "classification"
) -> Dataset:
    """The same rows as train and dev."""
    train, dev = (Split(name, list(texts), None, list(targets)) for name in ("train", "dev"))
    return Dataset(task, labels, train, dev, None)


def write_store(
    directory: Path,
    dataset: Dataset,
    logits: Mapping[str, NDArray[np.float32]],
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write every stage that the report reads; returns the bundle's directory.

    Args:
        logits: of teacher and student on dev.
        changes: dotted keys of the recipe.
    """
    recipe = parse_recipe(recipe_tree({"data.task": dataset.task, **(changes or {})}))
    store = Store(directory)
    keys: dict[str, ArtifactKey] = {}

    def make(stage: str, facts: Mapping[str, Any], files: Mapping[str, Any]) -> None:
        def write(here: Path) -> Mapping[str, Any]:
            for name, content in files.items():
                (here / name).parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, np.ndarray):
                    np.save(here / name, content)
                else:
                    (here / name).write_bytes(content)
            if stage == "data":
                write_dataset(dataset, here)
            return facts

        inputs = {made: key.fingerprint for made, key in keys.items()}
        keys[stage] = ArtifactKey(stage, 1, {}, inputs)
        store.build(keys[stage], recipe.name, write)

    make("data", facts_of(dataset, {"train/dev": 0}, []), {})
    head = b"{}"
    weights = {"model/model.safetensors": len(head).to_bytes(8, "little") + head}
    make("teacher", {"layers": 6, "parameters": 6}, weights)
    student = {"layer_map": [3, 6], "rows": 4, "steps": {"prediction": 10}}
    tokenizer = tiny_tokenizer().backend_tokenizer.to_str().encode()
    files = {**weights, "losses.csv": LOSSES.encode(), "model/tokenizer.json": tokenizer}
    make("distill", student, files)
    scored = {
        name: evaluate_logits(outputs, dataset.dev, dataset.labels)
        for name, outputs in logits.items()
    }
    evaluation = {name: {"dev": one.to_facts()} for name, one in scored.items()}
    stored = {f"{name}.dev.npy": one.predicted for name, one in scored.items()}
    stored |= {f"{name}.dev.logits.npy": one.logits for name, one in scored.items()}
    make("evaluate", evaluation, stored)
    make("bundle", {}, {})
    evaluations = evaluations_from_facts(evaluation)
    rules = check_rules(recipe.gate, recipe.metric, measure_student(recipe, evaluations))
    bundle = store.directory(keys["bundle"])
    scores = torch_scores(evaluations)
    latency = Latency(2.0, 3.0, 9)
    measured = RunMeasurements(
        size_bytes={"teacher": 9_000_000, "student": 3_000_000, "fp32": 3_000_000},
        parameters={"teacher": 2_250_000, "student": 750_000, "fp32": 750_000},
        latency={"teacher": Latency(8.0, 12.0, 9), "student": latency, "fp32": latency},
        latency_conditions="batch 1, one thread",
        machine={"processor": "a processor", "cores": 2},
        agreement={"fp32": {"dev": 1.0}},
        verdicts={"fp32": rules},
        choice="the first of fp32 (recipe order) to pass gate 2",
        scores={**scores, "fp32": scores["student"]},
    ).to_facts()
    thresholds = [0.5] * len(dataset.labels) if dataset.task == "multilabel" else UNSET
    manifest = scored_manifest(
        dataset.task,
        changes,
        labels=list(dataset.labels),
        thresholds=thresholds,
        scores=measured.pop("scores"),
        measurements=measured,
        gate=[rule.to_facts() for rule in rules],
        data={"rows": {split.name: len(split) for split in dataset.splits()}},
    )
    write_manifest(bundle, manifest)
    return bundle
