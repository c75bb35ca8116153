"""The loss of labels that do not exclude each other, against a loop over every label."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from factory.distill.losses import hard_label_loss, multilabel_loss, prediction_loss
from factory.distill.prediction import teacher_loss
from factory.models.encoding import Share

STUDENT = torch.tensor([[0.5, -1.0, 2.0], [0.0, 3.0, -0.25]])
TEACHER = torch.tensor([[2.0, -3.0, 0.0], [-1.0, 1.0, 4.0]])


def by_hand(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    total = 0.0
    for student_row, teacher_row in zip(student.tolist(), teacher.tolist(), strict=True):
        for answer, wanted in zip(student_row, teacher_row, strict=True):
            q = 1 / (1 + math.exp(-wanted / temperature))
            p = 1 / (1 + math.exp(-answer / temperature))
            total -= q * math.log(p) + (1 - q) * math.log(1 - p)
    return total / len(student) * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_every_label_counts_and_rows_are_averaged(temperature: float) -> None:
    found = multilabel_loss(STUDENT, TEACHER, temperature).item()
    assert found == pytest.approx(by_hand(STUDENT, TEACHER, temperature), rel=1e-5)


def test_golden_value() -> None:
    # teacher undecided, student undecided: ln 2 per label
    nothing = torch.zeros(4, 3)
    assert multilabel_loss(nothing, nothing, 1.0).item() == pytest.approx(3 * math.log(2))
    # teacher sure of both, student wrong in the first by 2: ln(1 + e^2) + ln(1 + e^-2)
    student, teacher = torch.tensor([[-2.0, 2.0]]), torch.tensor([[50.0, 50.0]])
    expected = math.log(1 + math.e**2) + math.log(1 + math.e**-2)
    assert multilabel_loss(student, teacher, 1.0).item() == pytest.approx(expected)


def test_the_gradient_pulls_to_the_teachers_probability() -> None:
    """At T = 1 it is (sigmoid(student) - sigmoid(teacher)) / rows."""
    student = STUDENT.clone().requires_grad_()
    multilabel_loss(student, TEACHER, 1.0).backward()
    expected = (torch.sigmoid(STUDENT) - torch.sigmoid(TEACHER)) / 2
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected)
    same = TEACHER.clone().requires_grad_()
    multilabel_loss(same, TEACHER, 3.0).backward()
    assert same.grad is not None
    assert same.grad.abs().max() < 1e-6


def test_the_square_keeps_the_gradients_size_when_the_temperature_changes() -> None:
    """For T -> infinity the gradient goes to (student - teacher) / 4, whatever T."""
    sizes = []
    for temperature in (50.0, 200.0):
        student = STUDENT.clone().requires_grad_()
        multilabel_loss(student, TEACHER, temperature).backward()
        assert student.grad is not None
        torch.testing.assert_close(student.grad, (STUDENT - TEACHER) / 8, atol=2e-3, rtol=1e-2)
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-2)


def test_two_classes_as_one_label() -> None:
    """A softmax over (0, x) is the sigmoid of x, so the two losses are one."""

    def pair(logits: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(logits), logits], dim=1)

    student, teacher = STUDENT[:, :1], TEACHER[:, :1]
    for temperature in (1.0, 4.0):
        torch.testing.assert_close(
            multilabel_loss(student, teacher, temperature),
            prediction_loss(pair(student), pair(teacher), temperature),
        )


def test_large_logits_stay_finite() -> None:
    student = torch.tensor([[300.0, -300.0]], requires_grad=True)
    loss = multilabel_loss(student, torch.tensor([[-300.0, 300.0]]), 1.0)
    assert loss.item() == pytest.approx(600.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_hard_labels_are_a_teacher_that_is_sure() -> None:
    applies = torch.tensor([[True, False, False], [False, True, True]])
    sure = torch.where(applies, 100.0, -100.0)
    found = hard_label_loss(STUDENT, applies)
    torch.testing.assert_close(found, multilabel_loss(STUDENT, sure, 1.0))
    wanted = np.where(applies.numpy(), 1.0, 0.0)
    p = 1 / (1 + np.exp(-STUDENT.numpy().astype(np.float64)))
    expected = -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p)).sum() / 2
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_prediction_phase_takes_it_for_multilabel_only() -> None:
    chosen = teacher_loss("multi_label_classification", 2.0)(STUDENT, TEACHER, None)
    torch.testing.assert_close(chosen, multilabel_loss(STUDENT, TEACHER, 2.0))
    single = teacher_loss("single_label_classification", 2.0)(STUDENT, TEACHER, None)
    torch.testing.assert_close(single, prediction_loss(STUDENT, TEACHER, 2.0))
    assert abs(chosen.item() - single.item()) > 0.1


def test_a_share_of_a_batch_counts_its_rows_weights() -> None:
    """Rows 0 and 1 with weights 2 and 0, of a step whose weights add up to 4."""
    share = Share(torch.tensor([2.0, 0.0]), 4.0, 1.0, 1.0)
    first = multilabel_loss(STUDENT[:1], TEACHER[:1], 1.0)
    torch.testing.assert_close(multilabel_loss(STUDENT, TEACHER, 1.0, share), first * 2 / 4)
    applies = TEACHER > 0
    hard = hard_label_loss(STUDENT[:1], applies[:1])
    torch.testing.assert_close(hard_label_loss(STUDENT, applies, share), hard * 2 / 4)
