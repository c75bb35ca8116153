"""Attention compared through relation heads, which need no equal head counts (MiniLMv2)."""

from __future__ import annotations

from math import gcd
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from factory.distill.losses import attention_scores
from factory.errors import RecipeError
from factory.models.encoding import Share
from factory.recipe.training import IntermediateSettings

# More heads than this are not chosen when the recipe leaves the number open; the paper has 48.
MOST_CHOSEN_HEADS = 48


def relation_loss(
    student_vectors: Tensor,
    teacher_vectors: Tensor,
    relation_heads: int,
    token_mask: Tensor,
    share: Share | None = None,
) -> Tensor:
    """KL divergence from the teacher's self-attention relation of queries, keys or values.

    MiniLMv2 (arXiv 2012.15828), section 3.1: the vectors of all heads side by side are split anew
    into relation heads; the relation is softmax(A A^T / sqrt(relation head width)). Mean over
    relation heads and real query rows. Padded keys stand outside the softmax, padded query rows
    outside sum and count. The paper compares one layer; here it is called for each mapped layer.

    Shapes:
        student_vectors: (batch, tokens, student width); teacher_vectors likewise, its own width
        token_mask: (batch, tokens), 1 for real tokens
    """
    student = _log_relations(student_vectors, relation_heads, token_mask)
    teacher = _log_relations(teacher_vectors, relation_heads, token_mask)
    per_key = functional.kl_div(student, teacher, reduction="none", log_target=True)
    per_query = per_key.sum(dim=(1, 3))
    weights = token_mask.to(per_query.dtype)
    total: Tensor | float = weights.sum() if share is None else share.tokens
    if share is not None:
        weights = weights * share.weights.unsqueeze(-1)
    return (per_query * weights).sum() / (total * relation_heads)


def _log_relations(vectors: Tensor, heads: int, token_mask: Tensor) -> Tensor:
    """Logarithm of the relation: (batch, relation heads, tokens, tokens), rows are queries."""
    scores = attention_scores(vectors, vectors, heads)
    # the least finite number and not -inf, whose difference between two models would be NaN
    least = torch.finfo(scores.dtype).min
    padding = ~token_mask.bool()[:, None, None, :]
    return functional.log_softmax(scores.masked_fill(padding, least), dim=-1)


def choose_relation_heads(settings: IntermediateSettings, student: Any, teacher: Any) -> int | None:
    """How many relation heads attention is compared through; None compares scores head by head.

    Left open by the recipe, it is the student's head count where that divides the teacher's width,
    else the largest divisor both widths have up to 48.

    Args:
        student, teacher: configurations with `hidden_size` and `num_attention_heads`.

    Raises:
        RecipeError: scores are asked for and the head counts differ, or the recipe's number of
            relation heads does not divide both widths.
    """
    heads = student.num_attention_heads
    if settings.attention != "relations" and heads == teacher.num_attention_heads:
        return None
    if settings.attention == "scores":
        raise RecipeError(
            "distill.intermediate.attention",
            [
                f'"scores" are compared head by head, but the teacher has '
                f"{teacher.num_attention_heads} heads and the student {heads}; "
                f'set it to "auto" or "relations", or student.heads = {teacher.num_attention_heads}'
            ],
        )
    common = gcd(student.hidden_size, teacher.hidden_size)
    divisors = [number for number in range(1, common + 1) if common % number == 0]
    wanted = settings.relation_heads
    if wanted is None:
        chosen = [number for number in divisors if number <= MOST_CHOSEN_HEADS]
        return heads if heads in divisors else chosen[-1]
    if wanted not in divisors:
        raise RecipeError(
            "distill.intermediate.relation_heads",
            [
                f"{wanted} does not divide both widths, {student.hidden_size} of the student and "
                f"{teacher.hidden_size} of the teacher; possible are "
                f"{', '.join(map(str, divisors))}; leave it out to have one chosen"
            ],
        )
    return wanted


def describe_attention(relation_heads: int | None, student: Any, teacher: Any) -> str:
    """How attention is compared, as one readable line."""
    ours, theirs = student.num_attention_heads, teacher.num_attention_heads
    if relation_heads is None:
        return f"attention scores of {ours} heads"
    if ours == theirs:
        return f"attention relations ({relation_heads} relation heads)"
    return (
        f"the teacher has {theirs} heads, the student {ours}: relations instead of scores "
        f"({relation_heads} relation heads)"
    )
