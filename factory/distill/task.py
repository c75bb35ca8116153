"""Task distillation: from a fine-tuned teacher to a student, in two phases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.data.dataset import Split
from factory.distill.intermediate import train_intermediate
from factory.distill.layer_map import describe_map, map_layers
from factory.distill.lesson import Lesson, learn_logits, make_lesson
from factory.distill.loss_log import LossPoint, summary
from factory.distill.phase import total_steps
from factory.distill.phases import intermediate_phase, prediction_phase
from factory.distill.relations import choose_relation_heads, describe_attention
from factory.distill.saving import save_student
from factory.distill.student import start_student, student_config
from factory.distill.student_vocabulary import (
    StudentVocabulary,
    student_vocabulary,
    without_intermediate,
)
from factory.distill.transfer import (
    AugmentedRows,
    Inputs,
    intermediate_rows,
)
from factory.distill.vocabulary import used_vocabulary
from factory.models.classifier import TorchClassifier
from factory.models.encoding import select_rows
from factory.models.source import ModelSource
from factory.recipe.training import DistillSettings, StudentSettings
from factory.runtime.progress import say


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What every student of a recipe is taught with."""

    logits: Lesson
    vocabulary: StudentVocabulary
    layer_map: tuple[int, ...]


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
    augmented: AugmentedRows | None = None,
    unlabelled: Inputs | None = None,
) -> dict[str, Any]:
    """Train a student on the teacher in both phases and save it as a plain BERT classifier.

    Args:
        directory: where the student goes; checkpoints of an interrupted run are found there.
        source: the checkpoint the student starts from, when the recipe names one.
        augmented: variants of the training rows; the teacher labels them anew.
        unlabelled: more inputs to learn on; the teacher's outputs are all that is known of them.

    Returns:
        Layer map and how attention was compared, or why the intermediate phase was skipped;
        steps, parameters, first and last value of each loss term, and how the student was chosen
        when several were trained.

    Raises:
        RecipeError: student and teacher do not fit together in the way the recipe asks for.
    """
    vocabulary = student_vocabulary(student, source, teacher)
    if vocabulary.logits_only is None:
        layer_map, facts = _compare_layers(teacher, student, settings)
    else:
        settings = without_intermediate(settings, vocabulary.logits_only)
        layer_map, facts = _skip_layers(vocabulary.logits_only)
    logits = make_lesson(
        directory, teacher, vocabulary.tokenizer, train, settings, augmented, unlabelled
    )
    lesson = _Lesson(logits, vocabulary, layer_map)

    best, losses = _best_of_seeds(directory, lesson, student, source, settings)
    save_student(directory, best.model, vocabulary.tokenizer, best.points)
    learned, held_out = logits.learned, logits.held_out
    first = len(intermediate_rows(logits.transfer, learned, settings))
    phases = ((intermediate_phase(settings), first), (prediction_phase(settings), len(learned)))
    return {
        **facts,
        "rows": len(learned),
        "steps": {phase.name: total_steps(phase, rows) for phase, rows in phases},
        "parameters": sum(parameter.numel() for parameter in best.model.parameters()),
        "losses": summary(best.points),
        "held_out": {"rows": len(held_out), "loss_by_seed": losses} if len(held_out) else None,
    }


def _best_of_seeds(
    directory: Path,
    lesson: _Lesson,
    student: StudentSettings,
    source: ModelSource | None,
    settings: DistillSettings,
) -> tuple[_Trained, dict[int, float | None]]:
    """The student nearest to the teacher on the held-out rows, and every seed's loss there."""
    losses: dict[int, float | None] = {}
    best: _Trained | None = None
    for seed in range(settings.seed, settings.seed + settings.seeds):
        here = directory if settings.seeds == 1 else directory / f"seed-{seed}"
        here.mkdir(exist_ok=True)
        trained = _train(here, lesson, student, source, settings.model_copy(update={"seed": seed}))
        losses[seed] = trained.held_out_loss
        if best is None or _less(trained.held_out_loss, best.held_out_loss):
            best = trained
    assert best is not None
    return best, losses


def _train(
    directory: Path,
    lesson: _Lesson,
    student: StudentSettings,
    source: ModelSource | None,
    settings: DistillSettings,
) -> _Trained:
    """One student through both phases; finished phases are taken from their checkpoints."""
    teacher, transfer = lesson.logits.teacher, lesson.logits.transfer
    shape = lesson.vocabulary.config
    start = start_student(
        student, source, teacher, lesson.layer_map, transfer.rows, settings.seed, shape
    )
    points: list[LossPoint] = []
    compares_layers = settings.intermediate.epochs > 0
    berts = [start.model.bert, *([teacher.model.bert] if compares_layers else [])]
    with used_vocabulary(transfer.rows, *berts) as rows:
        if compares_layers:
            seen = intermediate_rows(transfer, lesson.logits.learned, settings)
            points = train_intermediate(
                intermediate_phase(settings),
                teacher.model.bert,
                start,
                lesson.layer_map,
                select_rows(rows, seen),
                settings.intermediate,
                directory / "intermediate.checkpoint",
                teacher.device,
            )
        more, loss = learn_logits(
            prediction_phase(settings),
            start.model,
            lesson.logits,
            rows,
            settings.prediction.temperature,
            directory / "prediction.checkpoint",
        )
    return _Trained(start.model, points + more, loss)


def _less(first: float | None, second: float | None) -> bool:
    return first is not None and second is not None and first < second


def _compare_layers(
    teacher: TorchClassifier, student: StudentSettings, settings: DistillSettings
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The layer map, and how it and the attention are compared as facts; says both."""
    config = teacher.model.config
    layer_map = map_layers(settings.layer_map, student.layers, config.num_hidden_layers)
    say(f"layer map (student<-teacher): {describe_map(layer_map)}")
    facts: dict[str, Any] = {"layer_map": list(layer_map)}
    if settings.intermediate.epochs > 0:
        shape = student_config(teacher.model, student)
        heads = choose_relation_heads(settings.intermediate, shape, config)
        facts["attention"] = describe_attention(heads, shape, config)
        if heads is not None:
            say(facts["attention"])
    return layer_map, facts


def _skip_layers(reason: str) -> tuple[tuple[int, ...], dict[str, Any]]:
    """No layer map, and why as a fact; says it."""
    say(
        f"intermediate phase skipped: {reason}; the student keeps its own tokenizer and learns "
        "from the teacher's logits"
    )
    return (), {"intermediate": f"skipped: {reason}"}
