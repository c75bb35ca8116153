"""The distillation losses as pure functions of tensors and masks.

Each loss is a mean over real rows, tokens or pairs. A `Share` says which part of a larger batch the
given rows are and how much each row weighs; without one they are the batch and weigh the same.
Differences are taken in float32, whatever the models compute in.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from factory.models.encoding import Share


def hidden_loss(
    projected_student: Tensor,
    teacher_hidden: Tensor,
    token_mask: Tensor,
    share: Share | None = None,
) -> Tensor:
    """Mean squared error of hidden states (or embeddings) over real tokens only.

    TinyBERT, eq. 8 and 9. The denominator counts real tokens times width, so the value does not
    depend on how far a batch was padded.

    Shapes:
        projected_student, teacher_hidden: (batch, tokens, teacher width)
        token_mask: (batch, tokens), 1 for real tokens
    """
    weights = token_mask.float()
    total: Tensor | float = weights.sum() if share is None else share.tokens
    if share is not None:
        weights = weights * share.weights.unsqueeze(-1)
    per_token = (projected_student.float() - teacher_hidden.float()).square().sum(dim=-1)
    return (per_token * weights).sum() / (total * teacher_hidden.shape[-1])


def attention_scores(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Unnormalized scores Q K^T / sqrt(d) of every head (TinyBERT, eq. 7, before softmax).

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


def attention_loss(
    student_scores: Tensor,
    teacher_scores: Tensor,
    token_mask: Tensor,
    share: Share | None = None,
) -> Tensor:
    """Mean squared error of attention scores over heads and real (query, key) pairs.

    TinyBERT, eq. 7: the mean over heads. Padded keys and padded query rows take no part, neither
    in the sum nor in the count.

    Shapes:
        student_scores, teacher_scores: (batch, heads, tokens, tokens)
        token_mask: (batch, tokens), 1 for real tokens
    """
    mask = token_mask.float()
    weights = mask.unsqueeze(-1) * mask.unsqueeze(-2)
    total: Tensor | float = weights.sum() if share is None else share.pairs
    if share is not None:
        weights = weights * share.weights.view(-1, 1, 1)
    per_pair = (student_scores.float() - teacher_scores.float()).square().sum(dim=1)
    return (per_pair * weights).sum() / (total * student_scores.shape[1])


def prediction_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    share: Share | None = None,
) -> Tensor:
    """Soft cross entropy, summed over classes, averaged over rows, times temperature squared.

    TinyBERT, eq. 10; the square keeps the gradient's size when the temperature changes
    (Hinton et al. 2015, section 2).

    Shapes:
        student_logits, teacher_logits: (batch, classes)
    """
    teacher_probabilities = functional.softmax(teacher_logits / temperature, dim=-1)
    student_log_probabilities = functional.log_softmax(student_logits / temperature, dim=-1)
    per_row = -(teacher_probabilities * student_log_probabilities).sum(dim=-1)
    return mean_over_rows(per_row, share) * temperature**2


def multilabel_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    share: Share | None = None,
) -> Tensor:
    """Binary cross entropy of each label against the teacher's probability of it.

    Summed over labels and averaged over rows, as if every label were a classification of its own
    with two classes; times temperature squared, which keeps the gradient's size when the
    temperature changes (Hinton et al. 2015, section 2).

    Shapes:
        student_logits, teacher_logits: (batch, labels)
    """
    wanted = torch.sigmoid(teacher_logits / temperature)
    per_row = _binary_cross_entropy(student_logits / temperature, wanted)
    return mean_over_rows(per_row, share) * temperature**2


def regression_loss(student_outputs: Tensor, targets: Tensor, share: Share | None = None) -> Tensor:
    """Mean squared error of single-number outputs.

    Shapes:
        student_outputs, targets: (batch, 1)
    """
    return mean_over_rows((student_outputs - targets).square().squeeze(-1), share)


def hard_label_loss(logits: Tensor, targets: Tensor, share: Share | None = None) -> Tensor:
    """What the undistilled baseline minimizes: cross entropy, or squared error for numbers.

    Labels that do not exclude each other have a binary cross entropy each, and their sum counts.

    Shapes:
        logits: (batch, classes)
        targets: (batch,) class numbers, (batch, classes) booleans, or (batch, 1) numbers to predict
    """
    if targets.dtype == torch.bool:
        return mean_over_rows(_binary_cross_entropy(logits, targets.to(logits.dtype)), share)
    if targets.is_floating_point():
        return regression_loss(logits, targets, share)
    return mean_over_rows(functional.cross_entropy(logits, targets, reduction="none"), share)


def mean_over_rows(per_row: Tensor, share: Share | None) -> Tensor:
    """Mean of a loss per row, (batch,), or these rows' share of a larger batch's mean."""
    if share is None:
        return per_row.mean()
    return (per_row * share.weights).sum() / share.rows


def _binary_cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Sum over labels, (batch,); from logits, so that no probability rounds to 0 or 1."""
    per_label = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return per_label.sum(dim=-1)
