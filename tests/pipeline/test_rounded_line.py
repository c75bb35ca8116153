"""The whole line in this process with last epochs in the integer form's rounded numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_line import run_here, stage_directory
from tiny_models import open_tiny
from transformers import AutoModelForSequenceClassification

from factory.data.dataset import Dataset
from factory.errors import ParityError
from factory.models.source import find_model
from factory.store import load_artifact
from serving.bundle import read_manifest
from serving.predictor import Predictor

# Checkpoints of tiny epochs come within one second of each other.
pytestmark = [
    pytest.mark.filterwarnings("ignore:mtime may not be reliable:UserWarning"),
    pytest.mark.usefixtures("few_timings"),
]
QUANTIZE = {
    "variants": ["int8-static", "fp32"],
    "calibration_rows": 16,
    "training_epochs": 1.0,
    "training_learning_rate": 1e-3,
}
CHANGES: dict[str, Any] = {
    "data.test": ...,
    "teacher.fine_tune": False,
    "student": {"layers": 2, "hidden": 112, "heads": 4, "intermediate": 160, "start": "random"},
    "distill.intermediate.epochs": 3.0,
    "distill.intermediate.learning_rate": 1e-3,
    "distill.prediction.epochs": 3.0,
    "distill.prediction.learning_rate": 1e-3,
    "gate": {"min_retention": 0.6, "max_quantization_drop": 0.2, "min_agreement": 0.9},
    "quantize": QUANTIZE,
}


def test_what_ships_was_trained_with_rounded_numbers(
    tmp_path: Path, trained_folder: Path, dataset: Dataset
) -> None:
    (tmp_path / "teacher").symlink_to(trained_folder)
    store = tmp_path / "runs"
    bundle = run_here(tmp_path, dataset, CHANGES)
    rounded, distilled = stage_directory(store, "round"), stage_directory(store, "distill")
    facts = load_artifact(rounded).facts
    assert (facts["form"], facts["products"]) == ("int8-static", 13)
    assert facts["steps"] > 0

    # float weights again, which moved, and which are what was gated, exported and can be built on
    before, after = (
        AutoModelForSequenceClassification.from_pretrained(stage / "model").state_dict()
        for stage in (distilled, rounded)
    )
    assert before.keys() == after.keys()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert "bert.encoder.layer.0.intermediate.dense.weight" in moved
    manifest = read_manifest(bundle)
    assert manifest.lineage["student"] == load_artifact(rounded).fingerprint
    logits = open_tiny(rounded / "model").logits(dataset.dev.inputs())
    accuracy = (logits.argmax(axis=1) == np.array(dataset.dev.targets)).mean()
    assert manifest.scores["student"]["dev"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert manifest.model.variant == "int8-static"
    served = Predictor.open(bundle).logits(dataset.dev.inputs())
    assert (served.argmax(axis=1) == logits.argmax(axis=1)).mean() >= 0.9
    assert find_model(str(bundle), tmp_path, "student.start").location == str(rounded / "model")


def test_a_student_too_small_to_be_rounded_is_told(
    tmp_path: Path, trained_folder: Path, dataset: Dataset
) -> None:
    (tmp_path / "teacher").symlink_to(trained_folder)
    changes = CHANGES | {"student": {"layers": 2, "hidden": 24, "heads": 2, "intermediate": 32}}
    changes |= {"distill.intermediate.epochs": 0.1, "distill.prediction.epochs": 0.1}
    with pytest.raises(ParityError, match=r"quantize\.training_epochs: this student is too small"):
        run_here(tmp_path, dataset, changes)
