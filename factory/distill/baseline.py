"""The undistilled baseline: the same student trained on hard labels, for as many steps."""

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

# The learning rate that random weights need would destroy a derived start (docs/log.md).
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

    `distill.baseline` decides whether it starts from random weights or as the distilled student.

    Args:
        augmented_rows, unlabelled_rows: numbers of rows that only the distilled student uses.
        weigh_classes: as for the teacher (`teacher.class_weights`).
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
    """One phase over the labelled rows with the steps of both distillation phases.

    Args:
        rows, augmented, unlabelled: numbers of rows that the distilled student is trained on.
    """
    first, second = intermediate_phase(settings), prediction_phase(settings)
    everything = rows + augmented + unlabelled
    of_first = everything - (0 if settings.unlabelled_phases == "both" else unlabelled)
    steps = total_steps(first, of_first) + total_steps(second, everything)
    usual = FROM_RANDOM_WEIGHTS if settings.baseline == "random" else FROM_A_TRAINED_START
    phase = replace(second, name="baseline", learning_rate=settings.baseline_learning_rate or usual)
    return replace(phase, epochs=steps / steps_per_epoch(phase, rows))
