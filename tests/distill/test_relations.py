"""The relation loss, and the number of relation heads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from helpers.pipeline_run import line_recipe
from helpers.tiny_models import accuracy, open_tiny, tiny_bert, tiny_classifier, train_plainly
from pydantic import ValidationError
from tiny_runs import LONG, STUDENT, losses_of, run
from transformers import BertConfig

from factory.data.dataset import Dataset
from factory.distill.losses import relation_loss
from factory.distill.matching import choose_relation_heads
from factory.errors import RecipeError
from factory.recipe.training import IntermediateSettings

LENGTHS = (5, 2, 1)


def mask_of(lengths: tuple[int, ...], tokens: int) -> torch.Tensor:
    return torch.tensor([[int(t < length) for t in range(tokens)] for length in lengths])


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_by_hand() -> None:
    # one relation head of width 1, two real tokens; the third is padding
    student = torch.tensor([[[0.0], [0.0], [9.0]]])
    teacher = torch.tensor([[[math.log(3.0) ** 0.5], [0.0], [-9.0]]])
    # student: 1/2 and 1/2 for both queries; teacher: 3/4 and 1/4, then 1/2 and 1/2
    first = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    loss = relation_loss(student, teacher, 1, torch.tensor([[1, 1, 0]]))
    assert loss.item() == pytest.approx(first / 2, rel=1e-5)


def test_padding_changes_nothing_and_gets_no_gradient() -> None:
    extra = 4
    student, teacher = drawn(3, 5, 8, seed=3), drawn(3, 5, 12, seed=4)
    narrow = relation_loss(student, teacher, 4, mask_of(LENGTHS, 5))
    wide = torch.cat([student, torch.full((3, extra, 8), 30.0)], dim=1).requires_grad_()
    padded = torch.cat([teacher, torch.full((3, extra, 12), -30.0)], dim=1)
    mask = mask_of(LENGTHS, 5 + extra)
    loss = relation_loss(wide, padded, 4, mask)
    assert loss.item() == pytest.approx(narrow.item(), rel=1e-6)
    loss.backward()
    assert wide.grad is not None
    assert (wide.grad[~mask.bool()] == 0).all()
    # a row of one token has one relation, 1, whatever its vector
    assert (wide.grad[:2][mask[:2].bool()] != 0).all()


def test_equal_relations_cost_nothing() -> None:
    vectors = drawn(3, 5, 8, seed=5)
    mask = mask_of(LENGTHS, 5)
    assert relation_loss(vectors, -vectors, 2, mask).item() == pytest.approx(0, abs=1e-6)
    assert relation_loss(vectors, 2 * vectors, 2, mask).item() > 0.1


def test_half_precision_with_padding_is_finite() -> None:
    student, teacher = drawn(3, 5, 8, seed=1), drawn(3, 5, 12, seed=2)
    mask = mask_of(LENGTHS, 5)
    wanted = relation_loss(student, teacher, 4, mask).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = relation_loss(student.requires_grad_(), teacher, 4, mask)
    loss.backward()
    assert loss.item() == pytest.approx(wanted, rel=0.05)
    assert student.grad is not None
    assert student.grad.isfinite().all()


# how many relation heads


def shape(hidden: int, heads: int) -> BertConfig:
    return BertConfig(hidden_size=hidden, num_attention_heads=heads)


@pytest.mark.parametrize(
    ("student", "teacher", "settings", "expected"),
    [
        (shape(312, 12), shape(768, 12), {}, None),
        (shape(312, 12), shape(768, 12), {"attention": "scores"}, None),
        (shape(312, 12), shape(768, 12), {"attention": "relations"}, 12),
        (shape(312, 12), shape(768, 16), {}, 12),
        (shape(312, 12), shape(1024, 16), {}, 8),  # 12 does not divide 1024
        (shape(768, 5), shape(768, 12), {}, 48),
        (shape(768, 5), shape(768, 12), {"relation_heads": 64}, 64),
        (shape(10, 5), shape(21, 3), {}, 1),
    ],
)
def test_the_number_of_relation_heads(
    student: BertConfig, teacher: BertConfig, settings: dict[str, object], expected: int | None
) -> None:
    chosen = choose_relation_heads(IntermediateSettings(**settings), student, teacher)
    assert chosen == expected


def test_relation_heads_that_do_not_divide_the_teachers_width_are_refused() -> None:
    settings = IntermediateSettings(relation_heads=12)
    with pytest.raises(RecipeError, match=r"relation_heads") as caught:
        choose_relation_heads(settings, shape(312, 12), shape(1024, 16))
    (problem,) = caught.value.problems
    assert problem.startswith(
        "12 does not divide both widths, 312 of the student and 1024 of the teacher; possible are "
        "1, 2, 4, 8"
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"relation_heads": 5}, r"relation_heads 5 does not divide student\.hidden 24"),
        ({"relation_heads": 4, "attention": "scores"}, r'attention = "relations" or "auto"'),
    ],
)
def test_a_recipe_with_impossible_relation_heads_is_refused(
    changes: dict[str, object], told: str
) -> None:
    keys = {f"distill.intermediate.{key}": value for key, value in changes.items()}
    with pytest.raises((RecipeError, ValidationError), match=told):
        line_recipe(keys)


# learning


def test_a_student_of_four_heads_learns_from_a_teacher_of_six(
    tmp_path: Path, dataset: Dataset
) -> None:
    model = tiny_bert(dataset.labels, num_attention_heads=6)
    train_plainly(model, dataset.train)
    facts = run(tmp_path, tiny_classifier(model), dataset.train, LONG, STUDENT)
    assert facts["attention"].endswith("relations instead of scores (4 relation heads)")
    for layer in (1, 2):
        values = losses_of(tmp_path)[f"intermediate.attention.{layer}"]
        assert values[-1] < 0.75 * values[0]
    assert accuracy(open_tiny(tmp_path / "model"), dataset.dev) > 0.8
