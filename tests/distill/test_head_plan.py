"""Which teacher heads a student head starts from, and what that start is worth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.tiny_models import tiny_bert, tiny_classifier, train_plainly
from test_derive import derived

from factory.data.dataset import Dataset
from factory.distill.head_plan import HeadSource, plan_heads

INPUTS = 6


def planned(strength: list[float], student_heads: int, likeness: list[int]) -> list[HeadSource]:
    """A plan for heads of width 1 with given contributions; equal `likeness`, equal scores."""
    heads = len(strength)
    query = torch.zeros(heads, INPUTS, dtype=torch.float64)
    for head, kind in enumerate(likeness):
        query[head, kind] = 1.0 + head  # the cosine does not see the size
    value = torch.eye(heads, INPUTS, dtype=torch.float64)
    output = torch.eye(INPUTS, heads, dtype=torch.float64) * torch.tensor(strength)
    return plan_heads(query, query, value, output, heads, student_heads)


def test_equal_numbers_go_one_to_one() -> None:
    assert planned([1.0, 5.0, 2.0], 3, [0, 0, 0]) == [HeadSource(h, (h,)) for h in range(3)]


def test_the_strongest_heads_stay_and_take_in_those_that_attend_alike() -> None:
    plan = planned([1.0, 9.0, 2.0, 8.0, 3.0], 2, [0, 1, 1, 0, 0])
    assert plan == [HeadSource(1, (1, 2)), HeadSource(3, (3, 4, 0))]


def test_the_strongest_contributions_are_shared_among_more_heads() -> None:
    # 6 -> 3 each after one split, 2 each after two; 5 -> 2.5 each
    assert planned([6.0, 1.0, 5.0], 6, [0, 1, 2]) == [
        HeadSource(0, (0,), 0, 3),
        HeadSource(0, (0,), 1, 3),
        HeadSource(0, (0,), 2, 3),
        HeadSource(1, (1,)),
        HeadSource(2, (2,), 0, 2),
        HeadSource(2, (2,), 1, 2),
    ]


def trained(dataset: Dataset, heads: int) -> torch.nn.Module:
    model = tiny_bert(dataset.labels, num_attention_heads=heads)
    train_plainly(model, dataset.train)
    return model


@pytest.mark.parametrize(("teacher_heads", "student_heads"), [(2, 6)])
def test_more_heads_of_a_student_as_wide_lose_nothing(
    dataset: Dataset, teacher_heads: int, student_heads: int
) -> None:
    """Narrower heads: scores and contributions of rank 24 / teacher heads, split or cut."""
    teacher = tiny_classifier(trained(dataset, teacher_heads))
    student, _ = derived(teacher, dataset, (1, 2, 3), num_attention_heads=student_heads)
    texts = dataset.dev.inputs()
    wanted = teacher.logits(texts)
    error = np.square(tiny_classifier(student).logits(texts) - wanted).mean() / wanted.var()
    assert error < 0.01


@pytest.mark.parametrize(
    ("teacher_heads", "student_heads", "layer_map", "width", "most"),
    [(6, 4, (1, 2, 3), 24, 0.05), (6, 2, (2, 3), 16, 0.5)],
)
def test_fewer_heads_start_near_the_teacher(
    dataset: Dataset,
    teacher_heads: int,
    student_heads: int,
    layer_map: tuple[int, ...],
    width: int,
    most: float,
) -> None:
    """A random start leaves the whole variance of the logits, 1, and agrees by chance, 1/3."""
    teacher = tiny_classifier(trained(dataset, teacher_heads))
    student, _ = derived(
        teacher, dataset, layer_map, num_attention_heads=student_heads, hidden_size=width
    )
    assert all(torch.isfinite(value).all() for value in student.state_dict().values())
    texts = dataset.dev.inputs()
    wanted, found = teacher.logits(texts), tiny_classifier(student).logits(texts)
    assert np.square(found - wanted).mean() / wanted.var() < most
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.9


def test_merging_copies_of_heads_is_exact(dataset: Dataset) -> None:
    """Six heads that are two, three times over, the first two the strongest: two suffice."""
    model = tiny_bert(dataset.labels, num_attention_heads=6)
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            own = layer.attention.self
            for linear in (own.query, own.key, own.value):
                linear.weight.copy_(linear.weight[:8].repeat(3, 1))
                linear.bias.copy_(linear.bias[:8].repeat(3))
            layer.attention.output.dense.weight[:, 8:] *= 0.3
    student, _ = derived(tiny_classifier(model), dataset, (1, 2, 3), num_attention_heads=2)
    texts = dataset.dev.inputs()
    np.testing.assert_allclose(
        tiny_classifier(student).logits(texts), tiny_classifier(model).logits(texts), atol=1e-3
    )


def test_more_student_heads_than_directions_leave_the_rest_silent(dataset: Dataset) -> None:
    teacher = tiny_classifier(tiny_bert(dataset.labels, num_attention_heads=24))
    student, _ = derived(
        teacher, dataset, (3,), hidden_size=4, intermediate_size=8, num_attention_heads=4
    )
    assert all(torch.isfinite(value).all() for value in student.state_dict().values())
    single = tiny_classifier(tiny_bert(dataset.labels, num_attention_heads=4))
    many, _ = derived(single, dataset, (3,), num_attention_heads=24)
    assert all(torch.isfinite(value).all() for value in many.state_dict().values())
