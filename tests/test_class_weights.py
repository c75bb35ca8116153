"""Class weights against sklearn's and against what they are for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.teacher.class_weights import class_weights


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
