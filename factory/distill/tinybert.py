"""TinyBERT's task distillation (arXiv 1909.10351): from a fine-tuned teacher to a small student.

A student of M layers learns in two phases. Intermediate phase: student layer m reproduces teacher
layer g(m), its attention (eq. 7) and hidden states (eq. 8), and the embeddings (eq. 9). Prediction
phase: the student reproduces the teacher's logits (eq. 10).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from factory.data.dataset import Split
from factory.distill import losses
from factory.distill.activations import activations_of
from factory.distill.matching import LayerMap, choose_relation_heads, match_layers
from factory.distill.student import (
    StudentStart,
    save_student,
    start_student,
    student_config,
    student_vocabulary,
    without_intermediate,
)
from factory.distill.transfer_set import (
    AugmentedRows,
    DistillationData,
    Inputs,
    held_out_loss,
    intermediate_phase,
    load_data,
    prediction_phase,
)
from factory.models.classifier import TorchClassifier, forward_logits
from factory.models.encoding import Batch, select_rows
from factory.models.source import ModelSource
from factory.recipe.training import DistillSettings, IntermediateSettings, StudentSettings
from factory.runtime.progress import say
from factory.training.embedding_subset import embedding_subset
from factory.training.loss_log import LossPoint, summary
from factory.training.trainer import BatchLoss, Phase, total_steps, train


def distill(
    output: Path,
    teacher: TorchClassifier,
    labelled: Split,
    student: StudentSettings,
    source: ModelSource | None,
    settings: DistillSettings,
    augmented: AugmentedRows | None = None,
    unlabelled: Inputs | None = None,
) -> dict[str, Any]:
    """Train a student on the teacher in both phases and save it as a plain BERT classifier.

    Annotations are not used: the teacher labels every row of the transfer set.

    Args:
        output: the student's directory; an interrupted run resumes from its checkpoints there.
        source: the checkpoint the student starts from, when the recipe names one.

    Raises:
        RecipeError: the student of the recipe does not fit the teacher.
    """
    vocabulary = student_vocabulary(student, source, teacher)
    if vocabulary.logits_only is None:
        shape = student_config(teacher.model, student)
        layer_map, facts = match_layers(settings, shape, teacher.model.config)
    else:
        settings = without_intermediate(settings, vocabulary.logits_only)
        layer_map, facts = (), {"intermediate": f"skipped: {vocabulary.logits_only}"}
        say(f"intermediate phase {facts['intermediate']}; the student learns from logits alone")
    tokenizer = vocabulary.tokenizer
    data = load_data(output, teacher, tokenizer, labelled, settings, augmented, unlabelled)
    students: list[tuple[float, Any, list[LossPoint]]] = []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        folder = output if settings.seeds == 1 else output / f"seed-{seed}"
        folder.mkdir(exist_ok=True)
        start = start_student(
            student, source, teacher, layer_map, data.transfer.rows, seed, vocabulary.config
        )
        seeded = settings.model_copy(update={"seed": seed})
        points, loss = _train_student(folder, start, layer_map, data, seeded)
        students.append((0.0 if loss is None else loss, start.model, points))
    _, model, points = min(students, key=lambda trained: trained[0])  # the first without held-out
    save_student(output, model, tokenizer, points)
    first = len(data.intermediate_rows(settings))
    phases = ((intermediate_phase(settings), first), (prediction_phase(settings), len(data.train)))
    by_seed = {seed: loss for seed, (loss, _, _) in enumerate(students, start=settings.seed)}
    return {
        **facts,
        "rows": len(data.train),
        "steps": {phase.name: total_steps(phase, rows) for phase, rows in phases},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "losses": summary(points),
        "held_out": data.held_out_facts({"loss_by_seed": by_seed}),
    }


def _train_student(
    folder: Path,
    start: StudentStart,
    layer_map: LayerMap,
    data: DistillationData,
    settings: DistillSettings,
) -> tuple[list[LossPoint], float | None]:
    """Train both phases in place; return the loss log, and the held-out loss if there is one."""
    points: list[LossPoint] = []
    compares_layers = settings.intermediate.epochs > 0
    models = [start.model, data.teacher.model][: 1 + compares_layers]
    with embedding_subset(data.transfer.rows, *models):
        if compares_layers:
            points = train(
                intermediate_phase(settings),
                IntermediateLoss(start, data.teacher.model, layer_map, settings.intermediate),
                select_rows(data.transfer.rows, data.intermediate_rows(settings)),
                folder / "intermediate.checkpoint",
                data.teacher.device,
            )
        phase, temperature = prediction_phase(settings), settings.prediction.temperature
        file = folder / "prediction.checkpoint"
        more, loss = train_on_logits(phase, start.model, data, temperature, file)
    return points + more, loss


class IntermediateLoss(BatchLoss):
    """The losses of the embeddings and of every mapped layer (eq. 7 to 9), and their weighted sum.

    Only the student's embeddings and layers, and the projections, are trained.
    """

    def __init__(
        self, start: StudentStart, teacher: Any, layer_map: LayerMap, settings: IntermediateSettings
    ) -> None:
        super().__init__()
        student = start.model.bert
        self.trained = nn.ModuleList([student.embeddings, student.encoder])
        self.projections = start.projections
        self.berts = (student, teacher.bert)  # a tuple, so that they do not become submodules
        self.layer_map = layer_map
        self.settings = settings
        self.relation_heads = choose_relation_heads(settings, student.config, teacher.config)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms, named by kind and student layer, and `total`."""
        student, teacher = self.berts
        mask, relation_heads = batch.attention_mask, self.relation_heads
        with torch.no_grad():
            theirs = activations_of(teacher, batch, self.layer_map)
        ours = activations_of(student, batch, range(1, len(self.layer_map) + 1))
        projected = self.projections[0](ours.embedding)
        terms = {"embedding": losses.hidden_loss(projected, theirs.embedding, mask)}  # eq. 9
        for m, g in enumerate(self.layer_map, start=1):
            projected = self.projections[m](ours.hidden[m])
            terms[f"hidden.{m}"] = losses.hidden_loss(projected, theirs.hidden[g], mask)  # eq. 8
            if relation_heads is None:
                attention = losses.attention_loss(ours.scores(m), theirs.scores(g), mask)  # eq. 7
            else:  # MiniLMv2's loss of queries, keys and values, for other head counts
                pairs = zip(ours.vectors(m), theirs.vectors(g), strict=True)
                attention = torch.stack(
                    [losses.relation_loss(a, b, relation_heads, mask) for a, b in pairs]
                ).sum()
            terms[f"attention.{m}"] = attention
        total = losses.weighted_sum(terms, self.settings, relation_heads or ours.heads)
        return {"total": total, **terms}


def train_on_logits(
    phase: Phase, student: Any, data: DistillationData, temperature: float, checkpoint_file: Path
) -> tuple[list[LossPoint], float | None]:
    """Train the student on the teacher's logits; return the loss log and the held-out loss.

    Where rows are held out, the epoch with the lowest loss on them is kept.
    """
    device, rows = data.teacher.device, select_rows(data.transfer.rows, data.train)
    loss = losses.teacher_loss(data.teacher.model, temperature)
    logits = torch.from_numpy(data.teacher_logits[data.train]).to(device)
    model = PredictionLoss(student, logits, loss)
    score = (lambda: -held_out_loss(student, data, loss)) if len(data.held_out) else None
    points = train(phase, model, rows, checkpoint_file, device, score)
    student.eval()
    return points, None if score is None else -score()


class PredictionLoss(BatchLoss):
    """The loss of the student's logits against the teacher's (eq. 10)."""

    def __init__(self, student: Any, teacher_logits: Tensor, loss: losses.TeacherLoss) -> None:
        super().__init__()
        self.student = student
        self.teacher_logits = teacher_logits
        self.loss = loss

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of the batch as `total`."""
        per_row = self.loss(forward_logits(self.student, batch), self.teacher_logits[batch.rows])
        return {"total": per_row.mean()}
