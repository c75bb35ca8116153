"""The loss of annotations, and class weights against sklearn's."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from factory.data.dataset import Split
from factory.models.encoding import EncodedRows, collate
from factory.training.hard_labels import HardLabelLoss, class_weights


@settings(deadline=None, max_examples=30)  # the first example pays for the import of sklearn
@given(st.lists(st.integers(0, 4), min_size=1, max_size=50))
def test_weights_are_sklearns_and_average_one(targets: list[int]) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    found = class_weights(np.array(targets), 5)
    occurring = np.unique(targets)
    expected = compute_class_weight("balanced", classes=occurring, y=np.array(targets))
    np.testing.assert_allclose(found[occurring], expected, rtol=1e-6)
    assert found[targets].mean() == pytest.approx(1.0, rel=1e-5)
    assert not found[np.setdiff1d(range(5), occurring)].any()


class Fixed(nn.Module):
    """A classifier whose logits are given: one row for each first token."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)
        self.config = SimpleNamespace(num_labels=len(logits[0]))

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=self.logits[input_ids[:, 0]])


def loss_of(logits: list[list[float]], targets: list[Any], *, weigh_classes: bool = False) -> float:
    """The loss of all rows but the first, in reverse order."""
    split = Split("train", ["text"] * len(targets), None, targets)
    ids = [np.array([row], dtype=np.int32) for row in range(len(targets))]
    rows = EncodedRows(ids, [np.zeros_like(one) for one in ids], pad_id=0)
    loss = HardLabelLoss(Fixed(logits), split, "cpu", weigh_classes)
    return loss(collate(rows, np.arange(1, len(targets))[::-1].copy(), "cpu"))["total"].item()


LN3 = math.log(3.0)


def test_the_loss_of_classes_and_its_weights() -> None:
    logits = [[0.0, 0.0], [0.0, 0.0], [LN3, 0.0], [LN3, 0.0]]
    targets = [0, 0, 1, 0]
    # probability of the right class: 1/2, 1/4, 3/4
    expected = [math.log(2), math.log(4), math.log(4 / 3)]
    assert loss_of(logits, targets) == pytest.approx(sum(expected) / 3, rel=1e-6)
    # four rows, two classes: 4 / (2 * 3) and 4 / (2 * 1); divided by rows, not by weights
    weighted = (expected[0] * 4 / 6 + expected[1] * 2 + expected[2] * 4 / 6) / 3
    assert loss_of(logits, targets, weigh_classes=True) == pytest.approx(weighted, rel=1e-6)


def test_the_losses_of_numbers_and_label_sets() -> None:
    assert loss_of([[9.0], [1.0], [5.0]], [0.0, 3.0, 5.0]) == 2.0
    # mean over rows and labels; probabilities 1/2, 3/4
    found = loss_of([[9.0, 9.0], [0.0, LN3]], [(), (1,)])
    assert found == pytest.approx((math.log(2) + math.log(4 / 3)) / 2, rel=1e-6)
