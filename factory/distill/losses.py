"""The distillation losses as pure functions of tensors and masks (TinyBERT, eq. 7 to 10).

The losses of the intermediate phase are means over real tokens or pairs of them. Differences are
taken in float32, also under autocast. The loss of logits (eq. 10) depends on the task
and is in `factory.models.tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from factory.models.tasks import task_of_model
from factory.recipe.training import IntermediateSettings

TeacherLoss = Callable[[Tensor, Tensor], Tensor]  # logits of student and teacher to (rows,)


def hidden_loss(projected_student: Tensor, teacher_hidden: Tensor, token_mask: Tensor) -> Tensor:
    """Mean squared error of hidden states (eq. 8) or embeddings (eq. 9) over real tokens only.

    The denominator counts real tokens times width, so the value does not depend on how far a batch
    was padded.

    Shapes:
        projected_student, teacher_hidden: (batch, tokens, teacher width)
        token_mask: (batch, tokens), 1 for real tokens
    """
    mask = token_mask.float()
    per_token = (projected_student.float() - teacher_hidden.float()).square().sum(dim=-1)
    return (per_token * mask).sum() / (mask.sum() * teacher_hidden.shape[-1])


def attention_scores(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Unnormalized scores Q K^T / sqrt(d) of every head (eq. 7, before softmax).

    Shapes:
        query, key: (batch, tokens, heads * head width)
        returns: (batch, heads, tokens, tokens), rows are queries
    """
    batch, tokens, width = query.shape
    head_width = width // heads
    query = query.view(batch, tokens, heads, head_width).transpose(1, 2)
    key = key.view(batch, tokens, heads, head_width).transpose(1, 2)
    scores: Tensor = torch.matmul(query, key.transpose(-1, -2)) / head_width**0.5
    return scores


def attention_loss(student_scores: Tensor, teacher_scores: Tensor, token_mask: Tensor) -> Tensor:
    """Mean squared error of attention scores over heads and real (query, key) pairs (eq. 7).

    Padded keys and padded query rows count neither in the sum nor in the denominator.

    Shapes:
        student_scores, teacher_scores: (batch, heads, tokens, tokens)
        token_mask: (batch, tokens), 1 for real tokens
    """
    mask = token_mask.float()
    pairs = mask.unsqueeze(-1) * mask.unsqueeze(-2)
    per_pair = (student_scores.float() - teacher_scores.float()).square().sum(dim=1)
    return (per_pair * pairs).sum() / (pairs.sum() * student_scores.shape[1])


def relation_loss(
    student_vectors: Tensor, teacher_vectors: Tensor, relation_heads: int, token_mask: Tensor
) -> Tensor:
    """KL divergence from the teacher's self-attention relation of queries, keys or values.

    MiniLMv2 (arXiv 2012.15828), section 3.1: the vectors of all heads are concatenated and split
    into relation heads; the relation is softmax(A A^T / sqrt(relation head width)). Mean over
    relation heads and real query rows. Padded keys are masked out of the softmax, padded query rows
    out of sum and denominator.

    Shapes:
        student_vectors: (batch, tokens, student width); teacher_vectors likewise, its own width
        token_mask: (batch, tokens), 1 for real tokens
    """
    student = _log_relations(student_vectors, relation_heads, token_mask)
    teacher = _log_relations(teacher_vectors, relation_heads, token_mask)
    per_key = functional.kl_div(student, teacher, reduction="none", log_target=True)
    per_query = per_key.sum(dim=(1, 3))
    mask = token_mask.to(per_query.dtype)
    return (per_query * mask).sum() / (mask.sum() * relation_heads)


def _log_relations(vectors: Tensor, heads: int, token_mask: Tensor) -> Tensor:
    """Logarithm of the relation: (batch, relation heads, tokens, tokens), rows are queries."""
    scores = attention_scores(vectors, vectors, heads)
    # the least finite number and not -inf, whose difference between two models would be NaN
    least = torch.finfo(scores.dtype).min
    padding = ~token_mask.bool()[:, None, None, :]
    return functional.log_softmax(scores.masked_fill(padding, least), dim=-1)


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


def teacher_loss(model: Any, temperature: float) -> TeacherLoss:
    """The loss of the prediction phase (eq. 10) per row, for the task of a classifier."""
    loss = task_of_model(model.config).teacher_loss
    return lambda student_logits, teacher_logits: loss(student_logits, teacher_logits, temperature)
