"""Reliability bins and expected calibration error against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.report.reliability import (
    class_reliability,
    label_set_reliability,
    reliability,
    softmax,
)


def test_error_over_two_bins_by_hand() -> None:
    """Lower bin: 0.2 and 0.4 said, none right, gap 0.3. Upper: 0.6, 0.8, 1.0 said, 2 of 3 right."""
    confidences = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    correct = np.array([False, False, True, True, False])
    measured = reliability(confidences, correct, bins=2)
    lower, upper = measured.bins
    assert (lower.rows, upper.rows) == (2, 3)
    assert lower.confidence == pytest.approx(0.3)
    assert lower.correct == 0
    assert upper.confidence == pytest.approx(0.8)
    assert upper.correct == pytest.approx(2 / 3)
    assert measured.error == pytest.approx(2 / 5 * 0.3 + 3 / 5 * (0.8 - 2 / 3))
    assert measured.mean_confidence == pytest.approx(0.6)
    assert measured.share_correct == pytest.approx(0.4)


def test_an_edge_belongs_to_the_bin_below_and_zero_to_the_first() -> None:
    measured = reliability(np.array([0.0, 0.25, 0.5, 1.0]), np.ones(4, dtype=bool), bins=4)
    assert [one.rows for one in measured.bins] == [2, 1, 0, 1]
    assert measured.bins[2].confidence is None
    assert [(one.lower, one.upper) for one in measured.bins][:2] == [(0.0, 0.25), (0.25, 0.5)]


def test_a_perfect_model_has_no_error_and_a_sure_wrong_one_has_all() -> None:
    sure = np.ones(7)
    assert reliability(sure, np.ones(7, dtype=bool)).error == 0
    assert reliability(sure, np.zeros(7, dtype=bool)).error == 1


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_no_row_is_lost_and_the_error_is_bounded(rows: list[tuple[float, bool]], bins: int) -> None:
    confidences = np.array([row[0] for row in rows])
    correct = np.array([row[1] for row in rows])
    measured = reliability(confidences, correct, bins)
    assert sum(one.rows for one in measured.bins) == len(rows)
    assert abs(measured.mean_confidence - measured.share_correct) <= measured.error + 1e-12
    assert measured.error <= 1


def test_a_class_is_as_sure_as_its_softmax() -> None:
    """ln 3 against 0 is three quarters; the second row answers the second class, wrongly."""
    logits = np.array([[np.log(3), 0.0], [0.0, np.log(3)]], dtype=np.float32)
    np.testing.assert_allclose(softmax(logits), [[0.75, 0.25], [0.25, 0.75]], atol=1e-7)
    measured = class_reliability(logits, np.array([0, 0]))
    assert measured.mean_confidence == pytest.approx(0.75)
    assert measured.share_correct == 0.5
    assert measured.error == pytest.approx(0.25)


def test_every_label_of_every_row_counts() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]])
    applies = np.array([[True, False], [True, True]])
    measured = label_set_reliability(probabilities, applies)
    assert sum(one.rows for one in measured.bins) == 4
    assert measured.error == pytest.approx(0.5 * 0.1 + 0.5 * 0.4)
