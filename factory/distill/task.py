"""Task distillation: from a fine-tuned teacher to a student, in two phases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from factory.classifier import TorchClassifier
from factory.data.dataset import Split
from factory.distill.intermediate import intermediate_phase, train_intermediate
from factory.distill.layer_map import describe_map, map_layers
from factory.distill.loss_log import summary
from factory.distill.phase import total_steps
from factory.distill.prediction import (
    cached_logits,
    prediction_phase,
    teacher_loss,
    train_prediction,
)
from factory.distill.saving import save_student
from factory.distill.student import start_student
from factory.distill.transfer import Inputs, transfer_set
from factory.distill.vocabulary import used_vocabulary
from factory.errors import RecipeError
from factory.model_source import ModelSource
from factory.progress import say
from factory.recipe import DistillSettings, IntermediateSettings, StudentSettings


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
        Layer map, steps, parameters and first and last value of each loss term.
    """
    config, device = teacher.model.config, teacher.device
    layer_map = map_layers(settings.layer_map, student.layers, config.num_hidden_layers)
    say(f"layer map (student<-teacher): {describe_map(layer_map)}")
    _check_heads(teacher, student, settings.intermediate)
    transfer = transfer_set(
        train.inputs(),
        unlabelled,
        settings.unlabelled_weight,
        teacher.tokenizer,
        teacher.max_length,
    )
    start = start_student(student, source, teacher, layer_map, transfer.rows, settings.seed)
    _freeze(teacher.model)
    phases = (intermediate_phase(settings), prediction_phase(settings))
    steps = {phase.name: total_steps(phase, len(transfer.rows)) for phase in phases}
    logits = cached_logits(directory, teacher, transfer) if steps["prediction"] else None

    with used_vocabulary(transfer.rows, teacher.model.bert, start.model.bert) as rows:
        points = train_intermediate(
            phases[0],
            teacher.model.bert,
            start,
            layer_map,
            rows,
            transfer.weights,
            settings.intermediate,
            directory / "intermediate.checkpoint",
            device,
        )
        if logits is not None:
            loss = teacher_loss(config.problem_type, settings.prediction.temperature)
            points += train_prediction(
                phases[1],
                start.model,
                logits,
                loss,
                rows,
                transfer.weights,
                directory / "prediction.checkpoint",
                device,
            )
    save_student(directory, start.model, teacher.tokenizer, points)
    return {
        "layer_map": list(layer_map),
        "rows": len(transfer.rows),
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in start.model.parameters()),
        "losses": summary(points),
    }


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
