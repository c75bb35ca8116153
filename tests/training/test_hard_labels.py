"""The loss of annotations by hand, and class weights against sklearn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.training.hard_labels import class_weights, hard_label_loss


def test_weights_worked_out_by_hand() -> None:
    # 10 rows, 3 classes: 10 / (3 * 5), 10 / (3 * 4), 10 / (3 * 1)
    found = class_weights([0, 0, 1, 0, 1, 2, 1, 0, 1, 0], 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [10 / 15, 10 / 12, 10 / 3], rtol=1e-6)


@settings(deadline=None)  # the first example pays for the import of sklearn
@given(st.lists(st.integers(0, 4), min_size=1, max_size=50))
def test_weights_are_sklearns_and_average_one(targets: list[int]) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    found = class_weights(targets, 5)
    occurring = np.unique(targets)
    expected = compute_class_weight("balanced", classes=occurring, y=np.array(targets))
    np.testing.assert_allclose(found[occurring], expected, rtol=1e-6)
    assert found[targets].mean() == pytest.approx(1.0, rel=1e-5)
    sums = [found[targets][np.array(targets) == number].sum() for number in occurring]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-5)  # every class counts alike


def test_a_class_without_rows_weighs_nothing() -> None:
    np.testing.assert_allclose(class_weights([0, 0, 0, 2], 3), [4 / 6, 0.0, 4 / 2], rtol=1e-6)


def test_the_loss_of_classes() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    # probability of the right class: 1/2, then 1/4
    result = hard_label_loss(logits, torch.tensor([0, 1]))
    assert result.item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)


def test_the_weighted_loss_is_the_mean_of_weight_times_cross_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    result = hard_label_loss(logits, torch.tensor([0, 1]), torch.tensor([0.5, 3.0]))
    assert result.item() == pytest.approx((0.5 * math.log(2) + 3 * math.log(4)) / 2, rel=1e-6)


def test_the_loss_of_numbers() -> None:
    result = hard_label_loss(torch.tensor([[1.0], [5.0]]), torch.tensor([[3.0], [5.0]]))
    assert result.item() == 2.0


def test_the_loss_of_label_sets_is_the_mean_over_rows_and_labels() -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0], [0.0, 3.0, -0.25]])
    applies = torch.tensor([[True, False, False], [False, True, True]])
    wanted = np.where(applies.numpy(), 1.0, 0.0)
    p = 1 / (1 + np.exp(-logits.numpy().astype(np.float64)))
    expected = -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p)).mean()
    assert hard_label_loss(logits, applies).item() == pytest.approx(expected, rel=1e-5)
