"""What a student is taught on the teacher's logits: the rows, the logits, and the training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from factory.data.dataset import Split
from factory.distill.loss_log import LossPoint
from factory.distill.phase import Phase
from factory.distill.prediction import LOGITS_FILE, cached_logits, teacher_loss, train_prediction
from factory.distill.selection import held_out_loss, hold_out
from factory.distill.transfer import AugmentedRows, Inputs, TransferSet, transfer_set
from factory.models.classifier import TorchClassifier
from factory.models.encoding import EncodedRows, select_rows
from factory.recipe.training import DistillSettings
from factory.runtime import distributed as processes


@dataclass(frozen=True, slots=True)
class Lesson:
    """A transfer set with the teacher's word on it.

    Shapes:
        teacher_logits: (rows, labels)
        learned, held_out: positions of rows
    """

    teacher: TorchClassifier
    transfer: TransferSet
    teacher_logits: NDArray[np.float32]
    learned: NDArray[np.int64]
    held_out: NDArray[np.int64]


def make_lesson(
    directory: Path,
    teacher: TorchClassifier,
    tokenizer: Any,
    train: Split,
    settings: DistillSettings,
    augmented: AugmentedRows | None,
    unlabelled: Inputs | None,
) -> Lesson:
    """The rows that the recipe's students learn on, tokenized, and the teacher's logits on them.

    Args:
        directory: where the logits are kept, or were by an earlier call with the same rows.
        tokenizer: the student's.
    """
    transfer = transfer_set(train.inputs(), augmented, unlabelled, tokenizer, teacher.max_length)
    learned, held_out = hold_out(
        transfer.source_rows, len(train), settings.holdout_fraction, settings.seed
    )
    _freeze(teacher.model)
    return Lesson(teacher, transfer, cached_logits(directory, teacher, transfer), learned, held_out)


def repeat_lesson(
    directory: Path,
    distilled: Path,
    teacher: TorchClassifier,
    tokenizer: Any,
    train: Split,
    settings: DistillSettings,
    augmented: AugmentedRows | None,
    unlabelled: Inputs | None,
) -> Lesson:
    """As `make_lesson`, with the logits kept for the distilled student, if they are still there."""
    shared = processes.from_first(lambda: (distilled / LOGITS_FILE).is_file())
    kept = distilled if shared else directory
    return make_lesson(kept, teacher, tokenizer, train, settings, augmented, unlabelled)


def learn_logits(
    phase: Phase,
    student: Any,
    lesson: Lesson,
    rows: EncodedRows,
    temperature: float,
    checkpoint_file: Path,
) -> tuple[list[LossPoint], float | None]:
    """Train a student on the teacher's logits; its loss on the held-out rows after it, if any.

    Args:
        rows: those of the transfer set, as the student's embedding table numbers them now.
    """
    device = lesson.teacher.device
    loss = teacher_loss(lesson.teacher.model.config.problem_type, temperature)

    def on_held_out() -> float:
        return held_out_loss(student, rows, lesson.held_out, lesson.teacher_logits, loss, device)

    points = train_prediction(
        phase,
        student,
        lesson.teacher_logits[lesson.learned],
        loss,
        select_rows(rows, lesson.learned),
        checkpoint_file,
        device,
        (lambda: -on_held_out()) if len(lesson.held_out) else None,
    )
    student.eval()
    return points, on_held_out() if len(lesson.held_out) else None


def _freeze(teacher: nn.Module) -> None:
    """Eval mode turns the teacher's dropout off: what it teaches must not be noise."""
    teacher.eval()
    teacher.requires_grad_(False)
