"""Both phases of task distillation on a start made before, scored between and after them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from factory.distill.student import StudentStart
from factory.distill.tinybert import IntermediateLoss, train_on_logits
from factory.distill.transfer_set import (
    DistillationData,
    TransferSet,
    intermediate_phase,
    prediction_phase,
)
from factory.models.classifier import TorchClassifier
from factory.recipe.training import DistillSettings
from factory.training.embedding_subset import embedding_subset
from factory.training.trainer import total_steps, train


def train_both(
    teacher: TorchClassifier,
    teacher_logits: NDArray[np.float32],
    transfer: TransferSet,
    start: StudentStart,
    layer_map: tuple[int, ...],
    settings: DistillSettings,
    scored: Callable[[int], None],
) -> None:
    """Train the start in place; `scored` is called with the steps done, before, between and after.

    Shapes:
        teacher_logits: (rows of the transfer set, labels)
    """
    phases = intermediate_phase(settings), prediction_phase(settings)
    first, second = (total_steps(phase, len(transfer.rows)) for phase in phases)
    everything = np.arange(len(transfer.rows))
    data = DistillationData(teacher, transfer, teacher_logits, everything, everything[:0])
    scored(0)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        with embedding_subset(transfer.rows, start.model, teacher.model):
            loss = IntermediateLoss(start, teacher.model, layer_map, settings.intermediate)
            train(phases[0], loss, transfer.rows, place / "intermediate", "cpu")
        start.model.eval()
        scored(first)
        with embedding_subset(transfer.rows, start.model):
            temperature = settings.prediction.temperature
            train_on_logits(phases[1], start.model, data, temperature, place / "prediction")
    scored(first + second)
