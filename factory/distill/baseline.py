"""The undistilled baseline: the same student on the annotations alone, for equal steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from factory.data.dataset import Split
from factory.distill.matching import map_layers
from factory.distill.student import (
    save_student,
    start_student,
    student_vocabulary,
    without_intermediate,
)
from factory.distill.transfer_set import intermediate_phase, prediction_phase
from factory.models.classifier import TorchClassifier
from factory.models.encoding import encode_inputs
from factory.models.source import ModelSource
from factory.recipe.training import DistillSettings, StudentSettings
from factory.training.embedding_subset import embedding_subset
from factory.training.hard_labels import HardLabelLoss
from factory.training.loss_log import summary
from factory.training.trainer import Phase, steps_per_epoch, total_steps, train

FROM_RANDOM_WEIGHTS = 6e-4
FROM_A_TRAINED_START = 1e-4


def train_baseline(
    output: Path,
    teacher: TorchClassifier,
    labelled: Split,
    student: StudentSettings,
    source: ModelSource | None,
    settings: DistillSettings,
    augmented_rows: int = 0,
    unlabelled_rows: int = 0,
    weigh_classes: bool = False,
) -> dict[str, Any]:
    """Train the same student on the hard labels alone, for as many steps as `distill` takes.

    The student starts from random weights or from the distilled student's own start, as
    `distill.baseline` says, and uses that student's tokenizer; nothing else of the teacher
    enters the training.

    Args:
        augmented_rows, unlabelled_rows: rows the distilled student is trained on besides; the
            baseline cannot use them and takes their steps on the labelled rows.
        weigh_classes: as the teacher was trained (`teacher.class_weights`).
    """
    vocabulary = student_vocabulary(student, source, teacher)
    rows = encode_inputs(vocabulary.tokenizer, labelled.inputs(), teacher.max_length)
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
    phase = baseline_phase(settings, len(rows), augmented_rows, unlabelled_rows)
    loss = HardLabelLoss(start.model, labelled, teacher.device, weigh_classes)
    with embedding_subset(rows, start.model):
        points = train(phase, loss, rows, output / "baseline.checkpoint", teacher.device)
    save_student(output, start.model, vocabulary.tokenizer, points)
    return {"steps": total_steps(phase, len(rows)), "losses": summary(points)}


def baseline_phase(
    settings: DistillSettings, rows: int, augmented: int = 0, unlabelled: int = 0
) -> Phase:
    """One phase with the steps of both distillation phases.

    A start that already solves the task would be destroyed at the rate that random weights need
    (docs/log.md).

    Args:
        rows: the labelled rows, all that the baseline is trained on.
        augmented, unlabelled: rows the distilled student is trained on besides.
    """
    first, second = intermediate_phase(settings), prediction_phase(settings)
    everything = rows + augmented + unlabelled
    of_first = everything - (0 if settings.unlabelled_phases == "both" else unlabelled)
    steps = total_steps(first, of_first) + total_steps(second, everything)
    usual = FROM_RANDOM_WEIGHTS if settings.baseline == "random" else FROM_A_TRAINED_START
    phase = replace(second, name="baseline", learning_rate=settings.baseline_learning_rate or usual)
    return replace(phase, epochs=steps / steps_per_epoch(phase, rows))
