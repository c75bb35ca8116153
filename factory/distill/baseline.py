"""The undistilled baseline: the same student on the annotations alone, for equal steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from factory.data.dataset import Split, is_multilabel, multi_hot
from factory.distill.layer_map import map_layers
from factory.distill.loss_log import summary
from factory.distill.losses import hard_label_loss
from factory.distill.phase import total_steps, train_phase
from factory.distill.phases import baseline_phase
from factory.distill.saving import save_student
from factory.distill.student import start_student
from factory.distill.student_vocabulary import student_vocabulary, without_intermediate
from factory.distill.vocabulary import used_vocabulary
from factory.models.classifier import TorchClassifier, forward_logits
from factory.models.encoding import Batch, encode_inputs
from factory.models.source import ModelSource
from factory.recipe.training import DistillSettings, StudentSettings
from factory.teacher.class_weights import class_weights


def train_baseline(
    directory: Path,
    teacher: TorchClassifier,
    train: Split,
    student: StudentSettings,
    source: ModelSource | None,
    settings: DistillSettings,
    augmented_rows: int = 0,
    unlabelled_rows: int = 0,
    weigh_classes: bool = False,
) -> dict[str, Any]:
    """Train the same student on the hard labels alone, for as many steps as `distill` takes.

    The student begins at random weights or at the distilled student's own start, as
    `distill.baseline` says, and reads with that student's tokenizer; nothing else of the teacher
    enters the training.

    Args:
        augmented_rows, unlabelled_rows: rows the distilled student learns on besides; the
            baseline cannot use them and takes their steps on the labelled rows.
        weigh_classes: as the teacher was trained (`teacher.class_weights`).
    """
    vocabulary = student_vocabulary(student, source, teacher)
    rows = encode_inputs(vocabulary.tokenizer, train.inputs(), teacher.max_length)
    layer_map: tuple[int, ...] = ()
    if vocabulary.logits_only is None:
        depth = teacher.model.config.num_hidden_layers
        layer_map = map_layers(settings.layer_map, student.layers, depth)
    else:
        settings = without_intermediate(settings, vocabulary.logits_only)
    if settings.baseline == "random":
        student, source = student.model_copy(update={"start": "random"}), None
    start = start_student(
        student, source, teacher, layer_map, rows, settings.seed, vocabulary.config
    )
    targets = _targets(train, start.model.config.num_labels, teacher.device)
    phase = baseline_phase(settings, len(rows), augmented_rows, unlabelled_rows)

    def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits = forward_logits(start.model, batch)
        return hard_label_loss(logits, targets[batch.rows], batch.share), {}

    checkpoint = directory / "baseline.checkpoint"
    modules = nn.ModuleDict({"student": start.model})
    with used_vocabulary(rows, start.model.bert) as small_rows:
        points = train_phase(
            phase,
            modules,
            small_rows,
            losses,
            checkpoint,
            teacher.device,
            row_weights=_row_weights(train, teacher) if weigh_classes else None,
        )
    save_student(directory, start.model, vocabulary.tokenizer, points)
    return {"steps": total_steps(phase, len(rows)), "losses": summary(points)}


def _row_weights(train: Split, teacher: TorchClassifier) -> NDArray[np.float32]:
    weights = class_weights(train.targets, teacher.model.config.num_labels)
    return weights[np.array(train.targets, dtype=np.int64)]


def _targets(train: Split, labels: int, device: str) -> Tensor:
    if is_multilabel(train):
        return torch.from_numpy(multi_hot(train, labels)).to(device)
    if isinstance(train.targets[0], float):
        return torch.tensor(train.targets, dtype=torch.float32, device=device).unsqueeze(1)
    return torch.tensor(train.targets, dtype=torch.int64, device=device)
