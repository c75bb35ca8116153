"""Task distillation: the intermediate phase, the prediction phase, and the undistilled baseline."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from factory.classifier import TorchClassifier, forward_logits, logits_with_bar
from factory.data.dataset import Split
from factory.distill.capture import recording
from factory.distill.layer_map import describe_map, map_layers
from factory.distill.losses import (
    attention_loss,
    hard_label_loss,
    hidden_loss,
    prediction_loss,
    regression_loss,
)
from factory.distill.phase import LossPoint, Phase, total_steps, train_phase
from factory.distill.student import StudentStart, start_student
from factory.encoding import Batch, EncodedRows, encode_inputs, save_tokenizer
from factory.errors import RecipeError, TrainingError
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
) -> dict[str, Any]:
    """Train a student on the teacher in both phases and save it as a plain BERT classifier.

    Args:
        directory: where the student goes; checkpoints of an interrupted run are found there.
        source: the checkpoint the student starts from, when the recipe names one.

    Returns:
        Layer map, steps, parameters and first and last value of each loss term.
    """
    layer_map = _layer_map(teacher, student, settings)
    say(f"layer map (student<-teacher): {describe_map(layer_map)}")
    _check_heads(teacher, student, settings.intermediate)
    rows = encode_inputs(teacher.tokenizer, train.inputs(), teacher.max_length)
    start = start_student(student, source, teacher, layer_map, rows, settings.seed)
    _freeze(teacher.model)
    points = _intermediate_phase(directory, teacher, start, layer_map, rows, settings)
    points += _prediction_phase(directory, teacher, start.model, train, rows, settings)
    _finish(directory, start.model, teacher.tokenizer, points)
    phases = phases_of(settings)
    return {
        "layer_map": list(layer_map),
        "rows": len(rows),
        "steps": {phase.name: total_steps(phase, len(rows)) for phase in phases},
        "parameters": sum(parameter.numel() for parameter in start.model.parameters()),
        "losses": _summary(points),
    }


def train_baseline(
    directory: Path,
    teacher: TorchClassifier,
    train: Split,
    student: StudentSettings,
    source: ModelSource | None,
    settings: DistillSettings,
) -> dict[str, Any]:
    """Train the same student on the hard labels alone, for as many steps as `distill` takes.

    The student begins at random weights or at the distilled student's own start, as
    `distill.baseline` says; the teacher lends its tokenizer and nothing else to the training.
    """
    rows = encode_inputs(teacher.tokenizer, train.inputs(), teacher.max_length)
    if settings.baseline == "random":
        student, source = student.model_copy(update={"start": "random"}), None
    layer_map = _layer_map(teacher, student, settings)
    start = start_student(student, source, teacher, layer_map, rows, settings.seed)
    targets = _targets(train, teacher.device)
    phase = baseline_phase(settings, len(rows))

    def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        return hard_label_loss(forward_logits(start.model, batch), targets[batch.rows]), {}

    checkpoint = directory / "baseline.checkpoint"
    modules = nn.ModuleDict({"student": start.model})
    points = train_phase(phase, modules, rows, losses, checkpoint, teacher.device)
    _finish(directory, start.model, teacher.tokenizer, points)
    return {"steps": total_steps(phase, len(rows)), "losses": _summary(points)}


def phases_of(settings: DistillSettings) -> tuple[Phase, Phase]:
    """The two phases a recipe asks for."""
    first, second = settings.intermediate, settings.prediction
    common = (settings.weight_decay, settings.seed)
    size = settings.batch_size
    return (
        Phase("intermediate", first.epochs, size, first.learning_rate, first.warmup, *common),
        Phase("prediction", second.epochs, size, second.learning_rate, second.warmup, *common),
    )


def baseline_phase(settings: DistillSettings, rows: int) -> Phase:
    """One phase with the steps of both distillation phases.

    From random weights at the intermediate phase's rate; from the student's own start, which is
    trained already, at the prediction phase's: at the other it loses what it began with.
    """
    phases = phases_of(settings)
    steps = sum(total_steps(phase, rows) for phase in phases)
    per_epoch = -(-rows // settings.batch_size)
    first, second = phases
    rate = first.learning_rate if settings.baseline == "random" else second.learning_rate
    return Phase(
        "baseline",
        steps / per_epoch,
        first.batch_size,
        rate,
        first.warmup,
        first.weight_decay,
        first.seed,
    )


def intermediate_losses(
    student: Any,
    teacher: Any,
    projections: nn.ModuleList,
    layer_map: tuple[int, ...],
    token_mask: Tensor,
) -> dict[str, Tensor]:
    """Every loss term of the intermediate phase from two recordings of the same batch.

    Args:
        student, teacher: recordings after a forward pass (`factory.distill.capture`).
    """
    terms = {
        "embedding": hidden_loss(
            projections[0](student.embeddings()), teacher.embeddings(), token_mask
        )
    }
    for position, layer in enumerate(layer_map, start=1):
        projected = projections[position](student.hidden[position])
        terms[f"hidden.{position}"] = hidden_loss(projected, teacher.hidden[layer], token_mask)
        if student.heads == teacher.heads:  # else the recipe has weight 0 for it, see _check_heads
            terms[f"attention.{position}"] = attention_loss(
                student.scores(position), teacher.scores(layer), token_mask
            )
    return terms


def weighted_sum(terms: Mapping[str, Tensor], settings: IntermediateSettings) -> Tensor:
    """Sum of the terms, each times the recipe's weight of its kind."""
    weights = {
        "embedding": settings.embedding_weight,
        "hidden": settings.hidden_weight,
        "attention": settings.attention_weight,
    }
    return torch.stack(
        [weights[name.partition(".")[0]] * term for name, term in terms.items()]
    ).sum()


def _intermediate_phase(
    directory: Path,
    teacher: TorchClassifier,
    start: StudentStart,
    layer_map: tuple[int, ...],
    rows: EncodedRows,
    settings: DistillSettings,
) -> list[LossPoint]:
    phase, _ = phases_of(settings)
    student_bert, teacher_bert = start.model.bert, teacher.model.bert
    student_layers = tuple(range(1, len(layer_map) + 1))
    modules = nn.ModuleDict({"student": start.model, "projections": start.projections})
    with (
        recording(student_bert, student_layers) as student_record,
        recording(teacher_bert, layer_map) as teacher_record,
    ):

        def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
            with torch.no_grad():
                _encode(teacher_bert, batch)
            _encode(student_bert, batch)
            terms = intermediate_losses(
                student_record, teacher_record, start.projections, layer_map, batch.attention_mask
            )
            return weighted_sum(terms, settings.intermediate), terms

        checkpoint = directory / "intermediate.checkpoint"
        return train_phase(phase, modules, rows, losses, checkpoint, teacher.device)


def _prediction_phase(
    directory: Path,
    teacher: TorchClassifier,
    student: Any,
    train: Split,
    rows: EncodedRows,
    settings: DistillSettings,
) -> list[LossPoint]:
    _, phase = phases_of(settings)
    if not total_steps(phase, len(rows)):
        return []
    teacher_logits = torch.from_numpy(_cached_logits(directory, teacher, train)).to(teacher.device)
    regression = teacher_logits.shape[1] == 1

    def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        student_logits = forward_logits(student, batch)
        wanted = teacher_logits[batch.rows]
        if regression:
            return regression_loss(student_logits, wanted), {}
        temperature = settings.prediction.temperature
        return prediction_loss(student_logits, wanted, temperature), {}

    modules = nn.ModuleDict({"student": student})
    checkpoint = directory / "prediction.checkpoint"
    return train_phase(phase, modules, rows, losses, checkpoint, teacher.device)


def _cached_logits(directory: Path, teacher: TorchClassifier, train: Split) -> np.ndarray:
    """Teacher logits of the training rows, computed once per stage directory."""
    file = directory / "teacher_logits.npy"
    if not file.is_file():
        temporary = directory / "teacher_logits.tmp.npy"
        np.save(temporary, logits_with_bar(teacher, train.inputs(), "teacher logits"))
        temporary.replace(file)
    logits: np.ndarray = np.load(file, allow_pickle=False)
    return logits


def _encode(bert: Any, batch: Batch) -> None:
    bert(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_type_ids,
    )


def _targets(train: Split, device: str) -> Tensor:
    if isinstance(train.targets[0], float):
        return torch.tensor(train.targets, dtype=torch.float32, device=device).unsqueeze(1)
    return torch.tensor(train.targets, dtype=torch.int64, device=device)


def _freeze(teacher: nn.Module) -> None:
    """Eval mode turns the teacher's dropout off: what it teaches must not be noise."""
    teacher.eval()
    teacher.requires_grad_(False)


def _layer_map(
    teacher: TorchClassifier, student: StudentSettings, settings: DistillSettings
) -> tuple[int, ...]:
    depth = teacher.model.config.num_hidden_layers
    return map_layers(settings.layer_map, student.layers, depth)


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


def _finish(
    directory: Path,
    student: Any,
    tokenizer: Any,
    points: list[LossPoint],
) -> None:
    student.eval()
    broken = [name for name, weight in student.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise TrainingError(
            f"the student's {broken[0]} holds numbers that are not finite after the last step; "
            "lower the learning rates in distill"
        )
    student.save_pretrained(directory / "model")
    save_tokenizer(tokenizer, directory / "model")
    with (directory / "losses.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["phase", "step", "term", "value"])
        writer.writerows([p.phase, p.step, p.term, f"{p.value:.6g}"] for p in points)
    for leftover in (*directory.glob("*.checkpoint"), *directory.glob("*.tmp*")):
        leftover.unlink()


def _summary(points: list[LossPoint]) -> dict[str, dict[str, float]]:
    summary: dict[str, dict[str, float]] = {}
    for point in points:
        entry = summary.setdefault(f"{point.phase}.{point.term}", {"first": point.value})
        entry["last"] = point.value
    return summary
