"""A run with a pruned student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.pipeline_run import line_recipe, published, run_here, stage_directory
from helpers.tiny_models import open_tiny
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForSequenceClassification

from factory import pipeline
from factory.data.dataset import Dataset
from factory.errors import GateFailedError
from factory.models.source import find_model
from factory.stages import STAGES, prune
from factory.stages.stage import Run
from factory.store import Store, load_artifact
from serving.bundle import read_manifest
from serving.predictor import Predictor

pytestmark = pytest.mark.usefixtures("few_timings")
CHANGES: dict[str, Any] = {
    "data.test": ...,
    "teacher.fine_tune": False,
    "distill.intermediate.epochs": 4.0,
    "distill.prediction.epochs": 4.0,
    "gate": {"min_retention": 0.6, "max_quantization_drop": 0.2},
    "prune": {"neurons": 8, "epochs": 1.0, "learning_rate": 1e-3},
}


def test_from_teacher_to_a_bundle_with_fewer_neurons(
    tmp_path: Path, trained_folder: Path, dataset: Dataset
) -> None:
    (tmp_path / "teacher").symlink_to(trained_folder)
    store = tmp_path / "runs"
    bundle = run_here(tmp_path, dataset, CHANGES)
    pruned, distilled = stage_directory(store, "prune"), stage_directory(store, "distill")
    facts = load_artifact(pruned).facts
    assert facts["before"]["neurons"] == 32
    assert facts["neurons"] == 8

    # transformers alone opens it, and what ships computes the same
    plain = AutoModelForSequenceClassification.from_pretrained(pruned / "model")
    assert plain.config.intermediate_size == 8
    assert plain.num_parameters() == facts["parameters"]
    weights = onnx.load(stage_directory(store, "export") / "model.onnx").graph.initializer
    shapes = {tuple(tensor.dims) for tensor in weights}
    assert {(24, 8), (8, 24)} <= shapes
    assert (24, 32) not in shapes
    texts = dataset.dev.inputs()
    served, torch_logits = (
        Predictor.open(bundle).logits(texts),
        open_tiny(pruned / "model").logits(texts),
    )
    assert (served.argmax(axis=1) == torch_logits.argmax(axis=1)).mean() > 0.9

    # the manifest has the scores of both students; the gate uses the pruned one
    manifest = read_manifest(bundle)
    assert manifest.lineage["prune"] == load_artifact(pruned).fingerprint
    assert manifest.lineage["distill"] == load_artifact(distilled).fingerprint
    assert manifest.measurements["parameters"]["student"] == facts["parameters"]
    before = open_tiny(distilled / "model").logits(texts)
    for name, logits in (("student", torch_logits), ("unpruned", before)):
        accuracy = (logits.argmax(axis=1) == np.array(dataset.dev.targets)).mean()
        assert manifest.scores[name]["dev"]["accuracy"]["value"] == pytest.approx(accuracy)

    # the bundle can start another student, which is then the pruned one
    source = find_model(str(bundle), tmp_path, "student.start")
    assert source.location == str(pruned / "model")

    # a pruned student that lost a class fails the gate that the unpruned one passes
    teachers = manifest.scores["teacher"]["dev"]["accuracy"]["value"]
    assert manifest.scores["unpruned"]["dev"]["accuracy"]["value"] > 0.8 * teachers

    def forgetting(output: Path, run: Run) -> dict[str, Any]:
        told = prune.STAGE.make(output, run)
        file = output / "model" / "model.safetensors"
        weights = load_file(file)
        weights["classifier.bias"][2] = -100
        save_file(weights, file, metadata={"format": "pt"})
        return told

    stages = [
        replace(stage, make=forgetting) if stage is prune.STAGE else stage for stage in STAGES
    ]
    published_before = published(store)
    changes = {**CHANGES, "prune": {"neurons": 7}, "gate": {"min_retention": 0.8}}
    with pytest.raises(GateFailedError, match="gate 1"):
        pipeline.run(
            line_recipe(changes), tmp_path, Store(store), "cpu", stages=stages, report=False
        )
    made = {name.partition("-")[0] for name in published(store).keys() - published_before.keys()}
    assert made == {"prune", "evaluate"}  # and nothing was trained anew
