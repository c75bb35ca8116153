"""The training phases a recipe asks for."""

from __future__ import annotations

from dataclasses import replace

from factory.distill.phase import Phase, steps_per_epoch, total_steps
from factory.distill.transfer import phase_rows
from factory.recipe.training import (
    DistillSettings,
    GeneralSettings,
    IntermediateSettings,
    PredictionSettings,
)

FROM_RANDOM_WEIGHTS = 6e-4
FROM_A_TRAINED_START = 1e-4


def intermediate_phase(settings: DistillSettings) -> Phase:
    """The first phase of task distillation."""
    return _task_phase("intermediate", settings.intermediate, settings)


def prediction_phase(settings: DistillSettings) -> Phase:
    """The second phase of task distillation."""
    return _task_phase("prediction", settings.prediction, settings)


def general_phase(settings: GeneralSettings) -> Phase:
    """The one phase of general distillation."""
    return Phase(
        name="general",
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
    )


def baseline_phase(
    settings: DistillSettings, rows: int, augmented: int = 0, unlabelled: int = 0
) -> Phase:
    """One phase with the steps of both distillation phases.

    A start that knows the task already would lose what it began with at the rate that random
    weights need (docs/log.md).

    Args:
        rows: the labelled rows, all that the baseline learns on.
        augmented, unlabelled: rows the distilled student learns on besides.
    """
    first, second = intermediate_phase(settings), prediction_phase(settings)
    counts = phase_rows(settings, rows, augmented, unlabelled)
    steps = sum(map(total_steps, (first, second), counts))
    usual = FROM_RANDOM_WEIGHTS if settings.baseline == "random" else FROM_A_TRAINED_START
    rate = settings.baseline_learning_rate or usual
    phase = replace(second, name="baseline", learning_rate=rate)
    return replace(phase, epochs=steps / steps_per_epoch(phase, rows))


def _task_phase(
    name: str, own: IntermediateSettings | PredictionSettings, settings: DistillSettings
) -> Phase:
    return Phase(
        name=name,
        epochs=own.epochs,
        batch_size=own.batch_size or settings.batch_size,
        learning_rate=own.learning_rate,
        warmup=own.warmup,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
    )
