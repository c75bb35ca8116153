"""The teacher heads that each student head starts from, for equal and different numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class HeadSource:
    """The teacher heads that one student head starts from; heads are counted from 0.

    Args:
        scores: teacher head whose attention scores it takes.
        values: teacher heads whose contributions to the residual stream it takes, added up.
        part, parts: of the contribution's singular directions it takes number `part` and every
            `parts`-th after it.
    """

    scores: int
    values: tuple[int, ...]
    part: int = 0
    parts: int = 1


def plan_heads(
    query: Tensor, key: Tensor, value: Tensor, output: Tensor, heads: int, student_heads: int
) -> list[HeadSource]:
    """A source for every student head.

    Equal numbers: one each. More teacher heads: those with the largest contributions to the
    residual stream (norm of the value-output product) are kept, and the contribution of each other
    one is added to the kept head with the most similar attention scores (cosine of the query-key
    products). Fewer: a teacher head is split among several student heads, which all have its scores
    and a part of its contribution; the next student head is always assigned to the largest
    contribution per student head.

    Shapes:
        query, key, value: (teacher heads * head width, inputs), on inputs of unit second moment
        output: (outputs, teacher heads * head width)
    """
    if heads == student_heads:
        return [HeadSource(head, (head,)) for head in range(heads)]
    width = len(query) // heads
    values, outputs = value.view(heads, width, -1), output.view(len(output), heads, width)
    strength = [float(torch.linalg.norm(outputs[:, head] @ values[head])) for head in range(heads)]
    if heads > student_heads:
        alike = _score_cosines(query.view(heads, width, -1), key.view(heads, width, -1))
        return _merged(strength, alike, student_heads)
    return _split(strength, student_heads)


def _score_cosines(query: Tensor, key: Tensor) -> Tensor:
    """Cosine of the heads' bilinear forms, from products as small as a head: (heads, heads).

    <A B^T, C D^T> = sum((A^T C) * (B^T D)) entry by entry.
    """
    inner = torch.einsum("hwi,gvi->hgwv", query, query) * torch.einsum("hwi,gvi->hgwv", key, key)
    products = inner.sum(dim=(2, 3))
    norms = products.diagonal().clamp_min(torch.finfo(products.dtype).tiny).sqrt()
    return products / (norms[:, None] * norms[None, :])


def _merged(strength: list[float], alike: Tensor, student_heads: int) -> list[HeadSource]:
    by_strength = sorted(range(len(strength)), key=lambda head: -strength[head])
    groups = {head: [head] for head in sorted(by_strength[:student_heads])}
    kept = list(groups)
    for head in by_strength[student_heads:]:
        groups[kept[int(alike[head, kept].argmax())]].append(head)
    return [HeadSource(head, tuple(group)) for head, group in groups.items()]


def _split(strength: list[float], student_heads: int) -> list[HeadSource]:
    parts = [1] * len(strength)
    while sum(parts) < student_heads:
        shares = [total / count for total, count in zip(strength, parts, strict=True)]
        parts[shares.index(max(shares))] += 1
    return [
        HeadSource(head, (head,), part, count)
        for head, count in enumerate(parts)
        for part in range(count)
    ]
