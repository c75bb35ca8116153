"""The measurements of a run's models: the manifest's scores and measurements, typed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from factory.evaluation.gate import RuleResult
from factory.evaluation.latency import Latency
from factory.evaluation.metrics import Score
from factory.store import read_json, write_json
from serving.bundle import MANIFEST_NAME, Manifest
from serving.errors import BundleError

if TYPE_CHECKING:  # loads the models
    from factory.evaluation.results import Evaluations

# The models of a run that are not exported forms, in the order in which tables list them.
TORCH_MODELS: Mapping[str, str] = {
    "teacher": "teacher (torch)",
    "student": "student (torch)",
    "unpruned": "student before pruning (torch)",
    "baseline": "student without distillation (torch)",
}
GATE_FAILURE_FILE = "gate_failure.json"

Scores = Mapping[str, Mapping[str, Mapping[str, Score]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMeasurements:
    """The measurements of a run: its torch models and every exported form.

    Args:
        scores: by model, split and metric.
        size_bytes, parameters: of each model's weights.
        latency: of each form, and of teacher and student in torch.
        latency_conditions: shape, threads and machine of the latencies, as text.
        machine: where the latencies were measured.
        agreement: with the fp32 file, by form and split.
        verdicts: the results of gate 2 for each form, in the order in which forms are tried.
        choice: the reason for the served form, as text; empty when no form passed.
        vocabulary: facts of the trim stage, when the vocabulary was trimmed.
        predecessor: the bundle to be replaced and how each form compares with it.
    """

    scores: Scores = field(default_factory=dict)
    size_bytes: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    latency: Mapping[str, Latency] = field(default_factory=dict)
    latency_conditions: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)
    agreement: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    verdicts: Mapping[str, Sequence[RuleResult]] = field(default_factory=dict)
    choice: str = ""
    vocabulary: Mapping[str, Any] | None = None
    predecessor: Mapping[str, Any] | None = None

    def to_facts(self) -> dict[str, Any]:
        """The measurements as JSON data; missing ones are left out."""
        facts: dict[str, Any] = msgspec.to_builtins(self)
        return {name: value for name, value in facts.items() if value}


def read_measurements(manifest: Manifest) -> RunMeasurements:
    """The measurements of a bundle.

    Raises:
        BundleError: the manifest's scores or measurements have another structure.
    """
    try:
        return msgspec.convert(
            {**manifest.measurements, "scores": manifest.scores}, RunMeasurements
        )
    except msgspec.ValidationError as error:
        raise BundleError(
            Path(MANIFEST_NAME),
            [f"{manifest.name}: scores or measurements cannot be read ({error})"],
            "build the bundle again",
        ) from error


def torch_scores(evaluations: Evaluations) -> dict[str, dict[str, Mapping[str, Score]]]:
    """The scores of the torch models by model, split and metric."""
    return {
        model: {split: evaluation.scores for split, evaluation in splits.items()}
        for model, splits in evaluations.items()
    }


def weights_size(directory: Path) -> tuple[int, int]:
    """Bytes and parameters of the weights that a stage wrote.

    A safetensors file starts with the length of a JSON header, which has the tensors' shapes.
    """
    file = directory / "model" / "model.safetensors"
    with file.open("rb") as weights:
        header = json.loads(weights.read(int.from_bytes(weights.read(8), "little")))
    shapes = [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]
    return file.stat().st_size, sum(map(math.prod, shapes))


def save_gate_failure(directory: Path, measurements: RunMeasurements) -> None:
    """Write the measurements of a run in which no form passed gate 2."""
    write_json(directory / GATE_FAILURE_FILE, measurements.to_facts())


def load_gate_failure(directory: Path) -> RunMeasurements | None:
    """The measurements of a run that failed gate 2; None when it did not.

    Raises:
        StoreError: the file cannot be read.
    """
    file = directory / GATE_FAILURE_FILE
    return msgspec.convert(read_json(file), RunMeasurements) if file.is_file() else None
