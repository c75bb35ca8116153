"""The whole line in this process with unlabelled text, and with one class that is rare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.pipeline_run import line_recipe, published, run_here, stage_directory, write_files
from helpers.tiny_models import save_tiny, tiny_bert, tiny_dataset, tiny_split

from factory import pipeline
from factory.data.dataset import Dataset, Split, select
from factory.data.unlabelled import read_unlabelled
from factory.errors import TrainingError
from factory.stages import STAGES, distill
from factory.stages.stage import Run
from factory.store import Store, load_artifact
from serving.bundle import read_manifest
from serving.predictor import Predictor

# Checkpoints of tiny epochs come within one second of each other.
pytestmark = [
    pytest.mark.filterwarnings("ignore:mtime may not be reliable:UserWarning"),
    pytest.mark.usefixtures("few_timings"),
]


def test_unlabelled_text_joins_the_transfer_set_and_spares_the_teacher(tmp_path: Path) -> None:
    dataset = replace(tiny_dataset(), test=tiny_split("test", 45, seed=5))
    save_tiny(tiny_bert(), tmp_path / "teacher")
    store = tmp_path / "runs"
    new = [f"my {text} {number}" for number, text in enumerate(tiny_split("more", 50, 9).texts)]
    seen = [dataset.train.texts[0], dataset.dev.texts[0].upper(), "", new[0]]
    (tmp_path / "more.txt").write_text("\n".join([*new, *seen]), encoding="utf-8")

    labelled = {"distill.intermediate.epochs": 1.0, "gate": {"min_value": 0.0}}
    labelled |= {"distill.baseline": "random", "gate.max_quantization_drop": 1.0}
    run_here(tmp_path, dataset, labelled)
    before = published(store)
    alone = load_artifact(stage_directory(store, "distill")).facts
    without = load_artifact(stage_directory(store, "baseline")).facts

    bundle = run_here(tmp_path, dataset, {**labelled, "data.unlabelled": "more.txt"})
    made = {name.partition("-")[0] for name in published(store).keys() - before.keys()}
    # the rest is made anew behind them
    assert {"unlabelled", "distill", "baseline"} <= made
    assert made.isdisjoint({"data", "teacher"})

    artifact = load_artifact(stage_directory(store, "unlabelled"))
    assert read_unlabelled(artifact.directory) == new
    assert artifact.facts["rows"] == 50
    assert {k for k, v in artifact.facts["sources"][0]["dropped"].items() if v == 1} == {
        "empty", "repeated", "in_train", "in_dev"
    }  # fmt: skip
    lineage = read_manifest(bundle).lineage
    distilled = load_artifact(store / f"distill-{lineage['distill'][:12]}").facts
    assert (alone["rows"], distilled["rows"]) == (210, 260)
    assert distilled["steps"] == {"intermediate": 17, "prediction": 51}  # 260 rows by 16
    baseline = load_artifact(store / f"baseline-{lineage['baseline'][:12]}").facts
    assert (without["steps"], baseline["steps"]) == (14 + 42, 17 + 51)


def rare(split: Split) -> Split:
    """Two classes: angry, and glad with one row for seven of the other."""
    rows = [n for n, t in enumerate(split.targets) if t == 0 or (t == 2 and n % 21 == 2)]
    chosen = select(split, split.name, rows)
    return replace(chosen, targets=[int(target == 2) for target in chosen.targets])


def test_a_rare_class_from_weights_to_the_gate_on_its_f1(tmp_path: Path) -> None:
    splits = {name: rare(tiny_split(name, 336, seed)) for name, seed in (("train", 3), ("dev", 4))}
    dataset = Dataset("classification", ("angry", "glad"), splits["train"], splits["dev"], None)
    assert np.bincount(dataset.dev.targets).tolist() == [112, 16]
    save_tiny(tiny_bert(("LABEL_0", "LABEL_1")), tmp_path / "teacher")
    changes = {
        "data.test": ...,
        "data.allow_duplicates": True,
        "teacher.class_weights": "balanced",
        "teacher.epochs": 10.0,
        "distill.intermediate.epochs": 8.0,
        "distill.prediction.epochs": 8.0,
        "gate": {"metric": "f1", "positive_label": "glad", "min_value": 0.6},
        "gate.max_quantization_drop": 0.3,
    }
    bundle = run_here(tmp_path, dataset, changes)
    manifest = read_manifest(bundle)
    assert manifest.gate[0]["text"].startswith("min_value: f1 ")
    predictor = Predictor.open(bundle)
    answered = predictor.logits(dataset.dev.inputs()).argmax(axis=1) == 1
    wanted = np.array(dataset.dev.targets) == 1
    f1 = 2 * (answered & wanted).sum() / (answered.sum() + wanted.sum())
    assert manifest.scores["int8-static"]["dev"]["f1"]["value"] == pytest.approx(f1)

    # the other label's is another number
    again = read_manifest(run_here(tmp_path, dataset, {**changes, "gate.positive_label": "angry"}))
    f1 = 2 * (~answered & ~wanted).sum() / ((~answered).sum() + (~wanted).sum())
    assert again.scores["int8-static"]["dev"]["f1"]["value"] == pytest.approx(f1)


def test_a_student_that_answers_the_same_for_every_row_stops_the_run(
    tmp_path: Path, trained_folder: Path, dataset: Dataset
) -> None:
    """Its weights are zeroed behind distillation's back; the gate asks for nothing."""
    import shutil

    from safetensors.numpy import load_file, save_file

    shutil.copytree(trained_folder, tmp_path / "teacher")

    def broken(output: Path, run: Run) -> dict[str, Any]:
        facts = distill.STAGE.make(output, run)
        file = output / "model" / "model.safetensors"
        weights = load_file(file)
        weights["classifier.weight"] *= 0
        weights["classifier.bias"] = np.array([0, 1, 0], dtype=np.float32)
        save_file(weights, file, metadata={"format": "pt"})
        return facts

    stages = [replace(stage, make=broken) if stage is distill.STAGE else stage for stage in STAGES]
    write_files(tmp_path, dataset)
    changes = {"data.test": ..., "teacher.fine_tune": False, "gate": {"min_value": 0.0}}
    with pytest.raises(TrainingError, match="the student predicts 'calm' for every row of dev"):
        pipeline.run(line_recipe(changes), tmp_path, Store(tmp_path / "runs"), "cpu", stages=stages)
    assert not list((tmp_path / "runs").glob("export-*"))
