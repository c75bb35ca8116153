"""The prediction phase: the student learns the teacher's logits, computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from factory.distill.loss_log import LossPoint
from factory.distill.losses import multilabel_loss, prediction_loss, regression_loss
from factory.distill.phase import Phase, train_phase
from factory.distill.transfer import TransferSet
from factory.models.classifier import TorchClassifier, forward_logits, logits_with_bar
from factory.models.encoding import Batch, EncodedRows, Share
from factory.runtime import distributed as processes

LOGITS_FILE = "teacher_logits.npy"
TeacherLoss = Callable[[Tensor, Tensor, Share | None], Tensor]


def train_prediction(
    phase: Phase,
    student: Any,
    teacher_logits: NDArray[np.float32],
    loss: TeacherLoss,
    rows: EncodedRows,
    checkpoint_file: Path,
    device: str,
    score: Callable[[], float] | None = None,
) -> list[LossPoint]:
    """Train the whole student on the teacher's logits.

    Args:
        loss: from student logits, teacher logits and the batch's share, see `teacher_loss`.
        score: see `train_phase`.

    Shapes:
        teacher_logits: (rows, labels)
    """
    wanted = torch.from_numpy(teacher_logits).to(device)

    def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        return loss(forward_logits(student, batch), wanted[batch.rows], batch.share), {}

    modules = nn.ModuleDict({"student": student})
    return train_phase(phase, modules, rows, losses, checkpoint_file, device, score=score)


def teacher_loss(problem_type: str, temperature: float) -> TeacherLoss:
    """The loss against the teacher's outputs for a task (`config.problem_type`)."""
    if problem_type == "regression":
        return regression_loss
    soft_loss = multilabel_loss if problem_type == "multi_label_classification" else prediction_loss

    def soft_cross_entropy(
        student_logits: Tensor, teacher_logits: Tensor, share: Share | None
    ) -> Tensor:
        return soft_loss(student_logits, teacher_logits, temperature, share)

    return soft_cross_entropy


def cached_logits(
    directory: Path, teacher: TorchClassifier, transfer: TransferSet
) -> NDArray[np.float32]:
    """Teacher logits of the transfer set, computed once per stage directory: (rows, labels).

    Of several processes each computes a share of the rows.
    """
    file = directory / LOGITS_FILE
    if not processes.from_first(file.is_file):
        group = processes.current()
        bounds = [len(transfer.inputs) * rank // group.count for rank in range(group.count + 1)]
        mine = transfer.inputs[bounds[group.rank] : bounds[group.rank + 1]]
        shares = processes.gather(logits_with_bar(teacher, mine, "teacher logits"))
        if group.first:
            temporary = directory / "teacher_logits.tmp.npy"
            np.save(temporary, np.concatenate(shares))
            temporary.replace(file)
        return np.concatenate(shares)
    logits: NDArray[np.float32] = np.load(file, allow_pickle=False)
    return logits
