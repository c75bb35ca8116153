"""Short distillations of tiny models, and ways to look at what they leave."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from helpers.tiny_models import (
    tiny_dataset,
)
from safetensors.numpy import load_file
from torch import nn

from factory.data.dataset import Split
from factory.distill.tinybert import (
    distill,
)
from factory.models.classifier import TorchClassifier
from factory.recipe.training import (
    DistillSettings,
    IntermediateSettings,
    PredictionSettings,
    StudentSettings,
)

STUDENT = StudentSettings(
    layers=2, hidden=16, heads=4, intermediate=32, dropout=0.1, start="random"
)
SETTINGS = DistillSettings(
    seed=3,
    batch_size=16,
    intermediate=IntermediateSettings(epochs=6, learning_rate=5e-3),
    prediction=PredictionSettings(epochs=4, learning_rate=5e-3),
)
QUICK = DistillSettings(
    seed=3,
    batch_size=16,
    intermediate=IntermediateSettings(epochs=1, learning_rate=5e-3),
    prediction=PredictionSettings(epochs=1, learning_rate=5e-3),
)
LONG = DistillSettings(
    seed=3,
    batch_size=16,
    intermediate=IntermediateSettings(epochs=10, learning_rate=5e-3),
    prediction=PredictionSettings(epochs=15, learning_rate=5e-3),
)
SMALL = tiny_dataset(50, 30)  # 4 steps an epoch, the last of 2 rows


class PowerCut(Exception):
    """What interrupts a run in these tests."""


def weights(directory: Path) -> dict[str, np.ndarray]:
    return dict(load_file(directory / "model" / "model.safetensors"))


def same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def run(
    directory: Path,
    teacher: TorchClassifier,
    split: Split = SMALL.train,
    settings: DistillSettings = QUICK,
    student: StudentSettings = STUDENT,
    stage: Callable[..., dict[str, Any]] = distill,
) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    return stage(directory, teacher, split, student, None, settings)


def losses_of(directory: Path) -> dict[str, list[float]]:
    """Values of each `phase.term` in the loss log, in order."""
    values: dict[str, list[float]] = {}
    with (directory / "losses.csv").open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            values.setdefault(f"{row['phase']}.{row['term']}", []).append(float(row["value"]))
    return values


def hooks_of(model: nn.Module) -> list[Any]:
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


def garbled(split: Split) -> Split:
    """The same texts with annotations that say nothing."""
    targets = [1e6 if isinstance(target, float) else 0 for target in split.targets]
    return Split(split.name, split.texts, split.text_pairs, targets)
