"""The intermediate phase: embeddings, hidden states and attention of the mapped layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from factory.distill.capture import cut_after, recording
from factory.distill.loss_log import LossPoint
from factory.distill.losses import attention_loss, hidden_loss
from factory.distill.phase import Phase, train_phase
from factory.distill.relations import choose_relation_heads, relation_loss
from factory.distill.student import StudentStart
from factory.models.encoding import Batch, Rows, Share
from factory.recipe.training import IntermediateSettings


def train_intermediate(
    phase: Phase,
    teacher_bert: Any,
    start: StudentStart,
    layer_map: tuple[int, ...],
    rows: Rows,
    settings: IntermediateSettings,
    checkpoint_file: Path,
    device: str,
) -> list[LossPoint]:
    """Train the student's layers and the width projections to reproduce the teacher's.

    Args:
        teacher_bert: a frozen `BertModel` in eval mode.

    Raises:
        RecipeError: the attention of these two models cannot be compared as the recipe says.
    """
    student_bert = start.model.bert
    relation_heads = choose_relation_heads(settings, student_bert.config, teacher_bert.config)
    values = relation_heads is not None
    student_layers = tuple(range(1, len(layer_map) + 1))
    modules = nn.ModuleDict({"student": start.model, "projections": start.projections})
    with (
        cut_after(teacher_bert, max(layer_map)),
        recording(student_bert, student_layers, values=values) as student_record,
        recording(teacher_bert, layer_map, values=values) as teacher_record,
    ):

        def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
            with torch.no_grad():
                _encode(teacher_bert, batch)
            _encode(student_bert, batch)
            terms = intermediate_losses(
                student_record,
                teacher_record,
                start.projections,
                layer_map,
                batch.attention_mask,
                batch.share,
                relation_heads,
            )
            compared_heads = relation_heads or student_record.heads
            return weighted_sum(terms, settings, compared_heads), terms

        return train_phase(phase, modules, rows, losses, checkpoint_file, device)


def intermediate_losses(
    student: Any,
    teacher: Any,
    projections: nn.ModuleList,
    layer_map: tuple[int, ...],
    token_mask: Tensor,
    share: Share | None = None,
    relation_heads: int | None = None,
) -> dict[str, Tensor]:
    """Every loss term of the intermediate phase from two recordings of the same batch.

    With relation heads, the attention term of each mapped layer is the sum of the losses of the
    query-query, key-key and value-value relations, where MiniLMv2 takes those of one layer.

    Args:
        student, teacher: recordings after a forward pass (`factory.distill.capture`), with values
            where `relation_heads` is given.
        relation_heads: None compares the scores of equally many heads.
    """
    terms = {
        "embedding": hidden_loss(
            projections[0](student.embeddings()), teacher.embeddings(), token_mask, share
        )
    }
    for position, layer in enumerate(layer_map, start=1):
        projected = projections[position](student.hidden[position])
        terms[f"hidden.{position}"] = hidden_loss(
            projected, teacher.hidden[layer], token_mask, share
        )
        if relation_heads is None:
            attention = attention_loss(
                student.scores(position), teacher.scores(layer), token_mask, share
            )
        else:
            pairs = (
                (student.query, teacher.query),
                (student.key, teacher.key),
                (student.value, teacher.value),
            )
            attention = torch.stack(
                [
                    relation_loss(ours[position], theirs[layer], relation_heads, token_mask, share)
                    for ours, theirs in pairs
                ]
            ).sum()
        terms[f"attention.{position}"] = attention
    return terms


def weighted_sum(terms: Mapping[str, Tensor], settings: IntermediateSettings, heads: int) -> Tensor:
    """Sum of the terms, each times the recipe's weights of its kind and of its layer.

    Args:
        heads: compared, or relation heads; multiplies the attention terms when the recipe sums
            over heads.
    """
    kinds = {
        "embedding": settings.embedding_weight,
        "hidden": settings.hidden_weight,
        "attention": settings.attention_weight * (heads if settings.head_reduction == "sum" else 1),
    }
    depth = max(_layer_of(name) for name in terms)
    layers = settings.layer_weights or [1.0] * (depth + 1)
    weighted = []
    for name, term in terms.items():
        layer = _layer_of(name)
        weighted.append(kinds[name.partition(".")[0]] * layers[layer] * term)
    return torch.stack(weighted).sum()


def _layer_of(term: str) -> int:
    """Student layer of a term, counted from 1; 0 for the embedding output."""
    return int(term.partition(".")[2] or 0)


def _encode(bert: Any, batch: Batch) -> None:
    bert(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_type_ids,
    )
