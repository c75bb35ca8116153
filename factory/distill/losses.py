"""The distillation losses as pure functions of tensors and masks (TinyBERT, eq. 7 to 10).

Each loss is a mean over real rows, tokens or pairs. Differences are taken in float32, whatever the
models compute in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from factory.recipe.training import IntermediateSettings

TeacherLoss = Callable[[Tensor, Tensor], Tensor]


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


def teacher_loss(problem_type: str, temperature: float) -> TeacherLoss:
    """The loss of student outputs against teacher outputs for a task (`config.problem_type`)."""
    if problem_type == "regression":
        return regression_loss
    loss = multilabel_loss if problem_type == "multi_label_classification" else prediction_loss
    return lambda student_logits, teacher_logits: loss(student_logits, teacher_logits, temperature)


def prediction_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Soft cross entropy (eq. 10), summed over classes, averaged over rows, times temperature².

    The square keeps the gradient's size when the temperature changes (Hinton et al. 2015,
    section 2).

    Shapes:
        student_logits, teacher_logits: (batch, classes)
    """
    teacher_probabilities = functional.softmax(teacher_logits / temperature, dim=-1)
    student_log_probabilities = functional.log_softmax(student_logits / temperature, dim=-1)
    per_row = -(teacher_probabilities * student_log_probabilities).sum(dim=-1)
    return per_row.mean() * temperature**2


def multilabel_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Binary cross entropy of each label against the teacher's probability of it.

    Summed over labels and averaged over rows, as if every label were a binary classification; times
    temperature², as in `prediction_loss`.

    Shapes:
        student_logits, teacher_logits: (batch, labels)
    """
    per_label = functional.binary_cross_entropy_with_logits(
        student_logits / temperature, torch.sigmoid(teacher_logits / temperature), reduction="none"
    )
    return per_label.sum(dim=-1).mean() * temperature**2


def regression_loss(student_outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of single-number outputs.

    Shapes:
        student_outputs, targets: (batch, 1)
    """
    return (student_outputs - targets).square().mean()
