"""Metrics of label sets against scikit-learn, a plain bootstrap, and a search over constants."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score

from factory.evaluation import metrics
from factory.evaluation.metrics import per_class
from factory.evaluation.multilabel_metrics import best_constant_micro_f1, score_label_sets

# three labels, five rows; the last label never occurs and is never answered
TARGETS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
PREDICTED = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)


def random_sets(rows: int, labels: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    targets = random.random((rows, labels)) < 0.2
    flipped = random.random((rows, labels)) < 0.1
    return targets, targets ^ flipped


def test_by_hand() -> None:
    scores = score_label_sets(TARGETS, PREDICTED)
    # right 2 + 1 of (3 + 2) true and (2 + 2) answered
    assert scores["micro_f1"].value == pytest.approx(2 * 3 / (5 + 4))
    # first label 2 * 2 / (3 + 2), second 2 * 1 / (2 + 2); the third is on neither side
    assert scores["macro_f1"].value == pytest.approx((4 / 5 + 2 / 4) / 2)
    assert scores["exact_match"].value == 2 / 5
    interval = binomtest(2, 5).proportion_ci(0.95, method="wilson")
    assert (scores["exact_match"].low, scores["exact_match"].high) == (interval.low, interval.high)


@pytest.mark.parametrize(("rows", "labels"), [(40, 2), (60, 28), (30, 150)])
def test_against_scikit_learn(rows: int, labels: int) -> None:
    targets, predicted = random_sets(rows, labels, seed=rows)
    scores = score_label_sets(targets, predicted)
    assert scores["micro_f1"].value == pytest.approx(f1_score(targets, predicted, average="micro"))
    macro = f1_score(targets, predicted, average="macro", zero_division=np.nan)
    assert scores["macro_f1"].value == pytest.approx(macro)
    assert scores["exact_match"].value == pytest.approx(accuracy_score(targets, predicted))


def test_the_interval_is_that_of_a_plain_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed, one resample after the other, each scored by scikit-learn."""
    targets, predicted = random_sets(80, 5, seed=3)
    scores = score_label_sets(targets, predicted)
    random = np.random.default_rng(0)
    micro, macro = [], []
    for _ in range(metrics.RESAMPLES):
        rows = random.integers(0, 80, 80)
        micro.append(f1_score(targets[rows], predicted[rows], average="micro"))
        macro.append(
            f1_score(targets[rows], predicted[rows], average="macro", zero_division=np.nan)
        )
    for name, values in (("micro_f1", micro), ("macro_f1", macro)):
        low, high = np.quantile(values, [0.025, 0.975])
        assert (scores[name].low, scores[name].high) == pytest.approx((low, high))
        assert low < scores[name].value < high


def test_nothing_true_and_nothing_answered_is_no_success() -> None:
    nothing = np.zeros((3, 2), dtype=bool)
    scores = score_label_sets(nothing, nothing)
    assert scores["micro_f1"].value == scores["macro_f1"].value == 0.0
    assert scores["exact_match"].value == 1.0


def test_per_label() -> None:
    numbers = per_class(TARGETS.astype(int), PREDICTED.astype(int), ("a", "b", "c"))
    assert numbers["a"] == {
        "precision": 1.0, "recall": pytest.approx(2 / 3), "f1": pytest.approx(4 / 5), "support": 3
    }  # fmt: skip
    assert numbers["b"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert numbers["c"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6))
def test_no_other_constant_answer_is_better(rows: list[list[bool]]) -> None:
    targets = np.array(rows)
    values = []
    for answer in itertools.product([False, True], repeat=4):
        hits = int(targets[:, list(answer)].sum())
        values.append(2 * hits / max(1, sum(answer) * len(targets) + int(targets.sum())))
    assert best_constant_micro_f1(targets) == pytest.approx(max(values))
