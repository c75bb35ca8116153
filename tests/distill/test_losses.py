"""The distillation losses against plain loops and numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from factory.distill.losses import (
    attention_loss,
    attention_scores,
    hidden_loss,
)

LENGTHS = (5, 2, 1)  # real tokens of the three rows of a batch


def mask_of(lengths: tuple[int, ...], tokens: int) -> torch.Tensor:
    return torch.tensor([[int(t < length) for t in range(tokens)] for length in lengths])


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def widened(states: torch.Tensor, dimensions: tuple[int, ...], extra: int) -> torch.Tensor:
    """The same values with garbage appended along the given dimensions."""
    for dimension in dimensions:
        shape = list(states.shape)
        shape[dimension] = extra
        states = torch.cat([states, torch.full(shape, 1e3)], dim=dimension)
    return states


def test_hidden_loss_by_hand() -> None:
    student = torch.tensor([[[1.0, 2.0], [0.0, 1.0], [50.0, 50.0]]])
    teacher = torch.tensor([[[0.0, 4.0], [3.0, 1.0], [-9.0, 9.0]]])
    # two real tokens, two wide: (1 + 4 + 9 + 0) / 4
    assert hidden_loss(student, teacher, torch.tensor([[1, 1, 0]])).item() == 3.5


def test_attention_scores_by_hand() -> None:
    # one row, two tokens, two heads of width 1 and then one head of width 2
    query = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    key = torch.tensor([[[5.0, 6.0], [7.0, 8.0]]])
    two_heads = attention_scores(query, key, heads=2)
    assert two_heads.tolist() == [[[[5.0, 7.0], [15.0, 21.0]], [[12.0, 16.0], [24.0, 32.0]]]]
    one_head = attention_scores(query, key, heads=1) * math.sqrt(2)
    # rows are queries: 1*5 + 2*6, 1*7 + 2*8; 3*5 + 4*6, 3*7 + 4*8
    torch.testing.assert_close(one_head, torch.tensor([[[[17.0, 23.0], [39.0, 53.0]]]]))


def test_attention_loss_by_hand() -> None:
    # the third token is padding: as a key (third column) and as a query (third row) it is out
    student = torch.tensor([[[[1.0, 2.0, 90.0], [3.0, 4.0, 90.0], [90.0, 90.0, 90.0]]]])
    teacher = torch.tensor([[[[1.0, 0.0, -9.0], [0.0, 4.0, -9.0], [-9.0, -9.0, -9.0]]]])
    # (0 + 4 + 9 + 0) / 4 pairs of real tokens
    assert attention_loss(student, teacher, torch.tensor([[1, 1, 0]])).item() == 3.25


@pytest.mark.parametrize(
    ("loss", "shape", "token_dimensions"),
    [(hidden_loss, (3, 5, 4), (1,)), (attention_loss, (3, 2, 5, 5), (2, 3))],
)
def test_more_padding_changes_nothing(
    loss: Callable[..., torch.Tensor],
    shape: tuple[int, ...],
    token_dimensions: tuple[int, ...],
) -> None:
    extra = 3
    student, teacher = drawn(*shape, seed=5), drawn(*shape, seed=6)
    narrow = loss(student, teacher, mask_of(LENGTHS, 5))
    student, teacher = (
        widened(student, token_dimensions, extra),
        widened(-teacher, token_dimensions, extra) * -1,
    )
    wide = loss(student, teacher, mask_of(LENGTHS, 5 + extra))
    assert wide.item() == pytest.approx(narrow.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "shape"), [(hidden_loss, (2, 4, 3)), (attention_loss, (2, 2, 4, 4))]
)
def test_padding_gets_no_gradient_and_real_tokens_do(
    loss: Callable[..., torch.Tensor], shape: tuple[int, ...]
) -> None:
    student = drawn(*shape, seed=7).requires_grad_()
    mask = mask_of((4, 2), 4)
    loss(student, drawn(*shape, seed=8), mask).backward()
    gradient = student.grad
    assert gradient is not None
    if loss is hidden_loss:
        real = mask.bool().unsqueeze(-1).expand(shape)
    else:
        real = (mask.unsqueeze(2) * mask.unsqueeze(1)).bool().unsqueeze(1).expand(shape)
    assert (gradient[real] != 0).all()
    assert (gradient[~real] == 0).all()
