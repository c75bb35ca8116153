"""Task distillation: from a fine-tuned teacher to a student, in two phases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from factory.classifier import TorchClassifier
from factory.data.dataset import Split
from factory.distill.intermediate import intermediate_phase, train_intermediate
from factory.distill.layer_map import describe_map, map_layers
from factory.distill.loss_log import LossPoint, summary
from factory.distill.phase import total_steps
from factory.distill.prediction import (
    cached_logits,
    prediction_phase,
    teacher_loss,
    train_prediction,
)
from factory.distill.saving import save_student
from factory.distill.selection import held_out_loss, hold_out
from factory.distill.student import StudentStart, start_student
from factory.distill.transfer import Inputs, TransferSet, transfer_set
from factory.distill.vocabulary import used_vocabulary
from factory.encoding import EncodedRows, select_rows
from factory.errors import RecipeError
from factory.model_source import ModelSource
from factory.progress import say
from factory.recipe import DistillSettings, IntermediateSettings, StudentSettings


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What every student of a recipe is taught with.

    Shapes:
        teacher_logits: (rows, labels)
        learned, held_out: positions of rows
    """

    teacher: TorchClassifier
    layer_map: tuple[int, ...]
    transfer: TransferSet
    teacher_logits: NDArray[np.float32]
    learned: NDArray[np.int64]
    held_out: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Trained:
    """A student after both phases; its loss on the held-out rows is None when there are none."""

    model: Any
    points: list[LossPoint]
    held_out_loss: float | None


def distill(
    directory: Path,
    teacher: TorchClassifier,
    train: Split,
    student: StudentSettings,
    source: ModelSource | None,
    settings: DistillSettings,
    unlabelled: Inputs | None = None,
) -> dict[str, Any]:
    """Train a student on the teacher in both phases and save it as a plain BERT classifier.

    Args:
        directory: where the student goes; checkpoints of an interrupted run are found there.
        source: the checkpoint the student starts from, when the recipe names one.
        unlabelled: more inputs to learn on; the teacher's outputs are all that is known of them.

    Returns:
        Layer map, steps, parameters, first and last value of each loss term, and how the student
        was chosen when several were trained.
    """
    layer_map = map_layers(
        settings.layer_map, student.layers, teacher.model.config.num_hidden_layers
    )
    say(f"layer map (student<-teacher): {describe_map(layer_map)}")
    _check_heads(teacher, student, settings.intermediate)
    weight = settings.unlabelled_weight
    transfer = transfer_set(
        train.inputs(), unlabelled, weight, teacher.tokenizer, teacher.max_length
    )
    rows = len(transfer.rows)
    learned, held_out = hold_out(len(train), rows, settings.holdout_fraction, settings.seed)
    _freeze(teacher.model)
    logits = cached_logits(directory, teacher, transfer)
    lesson = _Lesson(teacher, layer_map, transfer, logits, learned, held_out)

    seeds = range(settings.seed, settings.seed + settings.seeds)
    losses: dict[int, float | None] = {}
    best: _Trained | None = None
    for seed in seeds:
        here = directory if settings.seeds == 1 else directory / f"seed-{seed}"
        here.mkdir(exist_ok=True)
        trained = _train(here, lesson, student, source, settings.model_copy(update={"seed": seed}))
        losses[seed] = trained.held_out_loss
        if best is None or _less(trained.held_out_loss, best.held_out_loss):
            best = trained
    assert best is not None
    save_student(directory, best.model, teacher.tokenizer, best.points)
    phases = (intermediate_phase(settings), prediction_phase(settings))
    return {
        "layer_map": list(layer_map),
        "rows": len(learned),
        "steps": {phase.name: total_steps(phase, len(learned)) for phase in phases},
        "parameters": sum(parameter.numel() for parameter in best.model.parameters()),
        "losses": summary(best.points),
        "held_out": {"rows": len(held_out), "loss_by_seed": losses} if len(held_out) else None,
    }


def _train(
    directory: Path,
    lesson: _Lesson,
    student: StudentSettings,
    source: ModelSource | None,
    settings: DistillSettings,
) -> _Trained:
    """One student through both phases; finished phases are taken from their checkpoints."""
    teacher, transfer = lesson.teacher, lesson.transfer
    start = start_student(student, source, teacher, lesson.layer_map, transfer.rows, settings.seed)
    bert = start.model.bert
    with used_vocabulary(transfer.rows, teacher.model.bert, bert) as rows:
        points = train_intermediate(
            intermediate_phase(settings),
            teacher.model.bert,
            start,
            lesson.layer_map,
            select_rows(rows, lesson.learned),
            transfer.weights[lesson.learned],
            settings.intermediate,
            directory / "intermediate.checkpoint",
            teacher.device,
        )
        more, loss = _predict(directory, lesson, start, rows, settings)
    return _Trained(start.model, points + more, loss)


def _predict(
    directory: Path,
    lesson: _Lesson,
    start: StudentStart,
    rows: EncodedRows,
    settings: DistillSettings,
) -> tuple[list[LossPoint], float | None]:
    """The prediction phase, and the student's loss on the held-out rows after it."""
    device = lesson.teacher.device
    loss = teacher_loss(lesson.teacher.model.config.problem_type, settings.prediction.temperature)

    def on_held_out() -> float:
        return held_out_loss(
            start.model, rows, lesson.held_out, lesson.teacher_logits, loss, device
        )

    points = train_prediction(
        prediction_phase(settings),
        start.model,
        lesson.teacher_logits[lesson.learned],
        loss,
        select_rows(rows, lesson.learned),
        lesson.transfer.weights[lesson.learned],
        directory / "prediction.checkpoint",
        device,
        (lambda: -on_held_out()) if len(lesson.held_out) else None,
    )
    start.model.eval()
    return points, on_held_out() if len(lesson.held_out) else None


def _less(first: float | None, second: float | None) -> bool:
    return first is not None and second is not None and first < second


def _freeze(teacher: nn.Module) -> None:
    """Eval mode turns the teacher's dropout off: what it teaches must not be noise."""
    teacher.eval()
    teacher.requires_grad_(False)


def _check_heads(
    teacher: TorchClassifier, student: StudentSettings, settings: IntermediateSettings
) -> None:
    heads = teacher.model.config.num_attention_heads
    if heads != student.heads and settings.attention_weight > 0 and settings.epochs > 0:
        raise RecipeError(
            "student.heads",
            [
                f"{student.heads}, but the teacher has {heads} and attention scores are compared "
                f"head by head; set student.heads = {heads} or "
                "distill.intermediate.attention_weight = 0"
            ],
        )
