"""The prune stage: remove a distilled student's least important neurons, and let it recover."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Split
from factory.distill.importance import neuron_importance
from factory.distill.lesson import Lesson, learn_logits, repeat_lesson
from factory.distill.loss_log import LossPoint, summary
from factory.distill.neurons import keep_neurons, strongest
from factory.distill.phase import Phase, total_steps
from factory.distill.phases import prediction_phase
from factory.distill.prediction import teacher_loss
from factory.distill.saving import save_student
from factory.distill.student import first_tokens
from factory.distill.transfer import AugmentedRows, Inputs
from factory.distill.vocabulary import used_vocabulary
from factory.models.classifier import TorchClassifier
from factory.models.encoding import select_rows
from factory.recipe.training import DistillSettings, PruneSettings
from factory.runtime import distributed as processes
from factory.runtime.progress import say


def prune(
    directory: Path,
    distilled: Path,
    student: TorchClassifier,
    teacher: TorchClassifier,
    train: Split,
    settings: PruneSettings,
    taught: DistillSettings,
    augmented: AugmentedRows | None = None,
    unlabelled: Inputs | None = None,
) -> dict[str, Any]:
    """Make a student with fewer feed-forward neurons of one that is distilled, and save it alike.

    Importance is measured on rows that the student learned on, against the teacher's logits; dev
    and test are not looked at.

    Args:
        directory: where the student goes; the checkpoint of an interrupted run is found there.
        distilled: the directory of the distilled student, with the teacher's logits if they are
            still there.
        student: that student; it is changed.
        taught: how it was distilled; the rows, and how it learns from them again.

    Returns:
        Neurons and parameters before and after, each layer's share of importance that was kept,
        steps, and first and last loss of the recovery.
    """
    lesson = repeat_lesson(
        directory,
        distilled,
        teacher,
        student.tokenizer,
        train,
        taught,
        augmented,
        unlabelled,
    )
    before = {"neurons": student.model.config.intermediate_size, "parameters": _size(student.model)}
    kept_importance = _remove(student.model, lesson, settings, taught)
    phase = recovery_phase(settings, taught)
    points, loss = _recover(directory, student.model, lesson, phase, taught.prediction.temperature)
    save_student(directory, student.model, student.tokenizer, points)
    say(f"{before['neurons']} neurons per layer -> {settings.neurons}")
    return {
        "before": before,
        "neurons": settings.neurons,
        "parameters": _size(student.model),
        "importance_kept": kept_importance,
        "rows": len(lesson.learned),
        "steps": total_steps(phase, len(lesson.learned)),
        "losses": summary(points),
        "held_out": {"rows": len(lesson.held_out), "loss": loss} if len(lesson.held_out) else None,
    }


def recovery_phase(settings: PruneSettings, taught: DistillSettings) -> Phase:
    """The prediction phase once more, at its own length and rate."""
    return replace(
        prediction_phase(taught),
        name="recovery",
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
    )


def _remove(
    student: Any, lesson: Lesson, settings: PruneSettings, taught: DistillSettings
) -> list[float]:
    """Cut the student; how much of each layer's importance is left."""
    device = lesson.teacher.device
    chosen = _calibration(lesson.learned, settings.calibration_rows, taught.seed)
    rows = select_rows(lesson.transfer.rows, chosen)
    loss = teacher_loss(student.config.problem_type, taught.prediction.temperature)
    # of several processes one decides: the last digits may differ
    importance = processes.from_first(
        lambda: neuron_importance(student, rows, lesson.teacher_logits[chosen], loss, device)
    )
    kept = strongest(importance, settings.neurons)
    keep_neurons(student, kept, first_tokens(rows), device)
    whole = np.maximum(importance.sum(axis=1), np.finfo(np.float64).tiny)
    shares = np.take_along_axis(importance, kept, axis=1).sum(axis=1) / whole
    return [round(float(share), 4) for share in shares]


def _calibration(learned: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Positions of rows drawn from those learned on, in the order they were drawn."""
    order = np.random.default_rng([seed, len(learned)]).permutation(learned)
    return order[:count]


def _recover(
    directory: Path, student: Any, lesson: Lesson, phase: Phase, temperature: float
) -> tuple[list[LossPoint], float | None]:
    with used_vocabulary(lesson.transfer.rows, student.bert) as rows:
        return learn_logits(
            phase, student, lesson, rows, temperature, directory / "recovery.checkpoint"
        )


def _size(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
