"""Decision thresholds by hand, and compared with a search over all decisions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from factory.evaluation.thresholds import (
    Thresholds,
    decide,
    fixed_thresholds,
    tune_threshold,
    tuned_thresholds,
)


def tuned(probabilities: list[float], applies: list[int]) -> float:
    return tune_threshold(np.array(probabilities), np.array(applies, dtype=bool))


def f1(applies: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Harmonic mean of precision and recall, 0 without a hit."""
    hits = int((applies & predicted).sum())
    if hits == 0:
        return 0.0
    precision, recall = hits / int(predicted.sum()), hits / int(applies.sum())
    return 2 * precision * recall / (precision + recall)


def logit(probabilities: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.log(probabilities / (1 - probabilities)).astype(np.float32)


@pytest.mark.parametrize(
    ("probabilities", "applies", "expected"),
    [
        # the gap between 0.4 and 0.2 separates perfectly: its middle
        ([0.1, 0.2, 0.4, 0.45], [0, 0, 1, 1], 0.3),
        # the gap between 0.2 and 0.8 holds 0.5 itself
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.5),
        # F1 with the top row: 2/3; with the top two: 2/4; with all three: 4/5, the best
        ([0.9, 0.8, 0.7], [1, 0, 1], 0.5),
        # the same far below 0.5: under the lowest row, half of it
        ([0.09, 0.08, 0.06], [1, 0, 1], 0.03),
        # top row alone 2/3, all four 4/6: a tie, and 0.5 is nearer to 0.35 than to 0.05
        ([0.4, 0.3, 0.2, 0.1], [1, 0, 0, 1], 0.35),
        # the same tie above 0.5: 0.5 itself keeps all four
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 0, 1], 0.5),
        # no row has the label
        ([0.9, 0.2], [0, 0], 0.5),
        # every row has it
        ([0.3, 0.2], [1, 1], 0.1),
        # equal probabilities stay together in any order
        ([0.3, 0.3, 0.1], [1, 0, 0], 0.2),
        ([0.3, 0.3, 0.1], [0, 1, 0], 0.2),
        # predicting no row is never best for a label that occurs
        ([0.9, 0.8], [0, 1], 0.5),
    ],
)
def test_by_hand(probabilities: list[float], applies: list[int], expected: float) -> None:
    assert tuned(probabilities, applies) == pytest.approx(expected, abs=1e-12)


def test_of_two_gaps_equally_far_from_the_middle_the_higher_is_used() -> None:
    # 2 of 3 with the top alone (threshold 0.6), 4/6 with all four (threshold 0.4)
    probabilities = [0.7, 0.5, 0.5, 0.45, 0.35]
    applies = [1, 0, 0, 1, 0]
    # F1: {0.7}: 2/3; {0.7, 0.5, 0.5}: 2/5; + 0.45: 4/6; all: 4/7
    assert tuned(probabilities, applies) == pytest.approx(0.6)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.booleans()), min_size=1, max_size=12
    )
)
def test_no_other_threshold_does_better(rows: list[tuple[float, bool]]) -> None:
    """Compared with all possible decisions."""
    probabilities = np.array([probability for probability, _ in rows])
    applies = np.array([applies for _, applies in rows])
    found = tune_threshold(probabilities, applies)

    def reached(threshold: float) -> float:
        return f1(applies, probabilities >= threshold)

    everything = [*np.unique(probabilities), 1.1]
    assert 0.0 <= found <= 1.0
    assert reached(found) == pytest.approx(max(map(reached, everything)))
    if reached(0.5) >= reached(found) - 1e-12:
        assert found == 0.5


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=8))
def test_probabilities_next_to_each_other(rows: list[tuple[float, bool]]) -> None:
    """Neighbouring floats, zeros and ones: the decision is still the best one."""
    probabilities = np.array([[p, np.nextafter(p, 1)] for p, _ in rows]).ravel()
    applies = np.array([[not a, a] for _, a in rows]).ravel()
    threshold = tune_threshold(probabilities, applies)
    best = max(f1(applies, probabilities >= value) for value in probabilities)
    assert f1(applies, probabilities >= threshold) == pytest.approx(best)


def test_every_label_has_its_own() -> None:
    probabilities = np.array([[0.1, 0.9], [0.2, 0.8], [0.4, 0.7], [0.45, 0.6]])
    applies = np.array([[0, 1], [0, 1], [1, 0], [1, 0]], dtype=bool)
    found = tuned_thresholds(logit(probabilities), applies, "dev", "macro_f1")
    assert found.values == pytest.approx((0.3, 0.75), abs=1e-6)
    assert found.source == "tuned on dev for the F1 of each label"
    assert decide(logit(probabilities), found).tolist() == applies.tolist()
    assert found.to_facts(("a", "b"))["thresholds"] == {"a": found.values[0], "b": found.values[1]}


def test_a_probability_on_the_threshold_applies() -> None:
    logits = np.array([[0.0, -1e-6], [np.log(3), 50.0]], dtype=np.float32)
    assert decide(logits, fixed_thresholds(0.5, 2)).tolist() == [[True, False], [True, True]]
    high = Thresholds((0.76, 1.0), "by hand")
    assert decide(logits, high).tolist() == [[False, False], [False, True]]


def micro_f1(applies: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """F1 over all cells of the table together."""
    return f1(applies.ravel(), predicted.ravel())


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=3, max_size=3),
        min_size=1,
        max_size=5,
    )
)
def test_no_other_thresholds_have_a_better_micro_f1(rows: list[list[tuple[int, bool]]]) -> None:
    """Compared with all combinations of decisions of three labels."""
    probabilities = np.array([[n / 10 for n, _ in row] for row in rows])
    applies = np.array([[applies for _, applies in row] for row in rows])
    found = tuned_thresholds(logit(probabilities), applies, "dev", "micro_f1")
    reached = micro_f1(applies, decide(logit(probabilities), found))
    choices = [[*np.unique(column - 0.01), 1.1] for column in probabilities.T]
    best = max(micro_f1(applies, probabilities >= np.array(one)) for one in product(*choices))
    assert reached == pytest.approx(best)
    assert found.source == "tuned on dev for micro F1"


def test_a_label_without_signal_is_never_predicted_for_micro_f1() -> None:
    """Its own F1 is best if every row gets it, micro F1 is not."""
    probabilities = np.array([[0.9, 0.3], [0.8, 0.3], [0.2, 0.3], [0.1, 0.3]])
    applies = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=bool)
    together = tuned_thresholds(logit(probabilities), applies, "dev", "micro_f1")
    alone = tuned_thresholds(logit(probabilities), applies, "dev", "macro_f1")
    assert decide(logit(probabilities), together)[:, 1].tolist() == [False] * 4
    assert decide(logit(probabilities), alone)[:, 1].tolist() == [True] * 4
