"""Both phases of task distillation on a start made before, scored between and after them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from factory.distill.intermediate import train_intermediate
from factory.distill.phase import total_steps
from factory.distill.phases import intermediate_phase, prediction_phase
from factory.distill.prediction import teacher_loss, train_prediction
from factory.distill.student import StudentStart
from factory.distill.transfer import TransferSet
from factory.distill.vocabulary import used_vocabulary
from factory.models.classifier import TorchClassifier
from factory.recipe.training import DistillSettings


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
    loss = teacher_loss(teacher.model.config.problem_type, settings.prediction.temperature)
    weights, bert = transfer.weights, teacher.model.bert
    scored(0)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        with used_vocabulary(transfer.rows, start.model.bert, bert) as rows:
            train_intermediate(
                phases[0],
                bert,
                start,
                layer_map,
                rows,
                weights,
                settings.intermediate,
                place / "intermediate",
                "cpu",
            )
        start.model.eval()
        scored(first)
        with used_vocabulary(transfer.rows, start.model.bert) as rows:
            train_prediction(
                phases[1],
                start.model,
                teacher_logits,
                loss,
                rows,
                weights,
                place / "prediction",
                "cpu",
            )
    start.model.eval()
    scored(first + second)
