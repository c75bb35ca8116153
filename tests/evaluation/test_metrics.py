"""Metrics and their intervals, by hand and compared with scikit-learn."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score

from factory.evaluation.evaluate import score_predictions
from factory.evaluation.metrics import LabelScore, Score, confusion, per_label

# true class: 0 0 0 0 | 1 1 1 1 | 2 2;  7 of 10 are right
TARGETS = np.array([0, 0, 1, 1, 0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 1, 1, 1, 0, 0, 0, 1, 2, 0])
LABELS = ("no", "yes", "maybe")

score_classes = partial(score_predictions, "classification")
score_numbers = partial(score_predictions, "regression")
score_label_sets = partial(score_predictions, "multilabel")


def binary(hits: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Targets and predictions from the numbers of TP, TN, FP and FN."""
    rows = [(1, 1), (0, 0), (0, 1), (1, 0)]
    pairs = [row for row, count in zip(rows, hits, strict=True) for _ in range(count)]
    targets, predicted = np.array(pairs).T
    return targets, predicted


def test_accuracy_has_its_wilson_interval() -> None:
    accuracy = score_classes(TARGETS, PREDICTED)["accuracy"]
    # z = 1.96: (0.7 + z^2/20 +- z sqrt(0.021 + z^2/400)) / (1 + z^2/10)
    z = 1.959963984540054
    middle = 0.7 + z**2 / 20
    half = z * math.sqrt(0.7 * 0.3 / 10 + z**2 / 400)
    assert accuracy.value == 0.7
    assert accuracy.low == pytest.approx((middle - half) / (1 + z**2 / 10))
    assert accuracy.high == pytest.approx((middle + half) / (1 + z**2 / 10))
    assert (accuracy.low, accuracy.high) == pytest.approx((0.3968, 0.8922), abs=1e-4)


def test_a_perfect_score_on_few_rows_is_not_certain() -> None:
    ones = np.array([0, 1, 1, 0])
    accuracy = score_classes(ones, ones)["accuracy"]
    assert accuracy.high == 1.0
    assert accuracy.low == pytest.approx(4 / (4 + 1.959963984540054**2))  # n / (n + z^2)


def test_macro_f1_weights_all_classes_equally() -> None:
    # 2 TP / (true + predicted): 6/9, 6/8 and 2/3
    macro_f1 = score_classes(TARGETS, PREDICTED)["macro_f1"].value
    assert macro_f1 == pytest.approx((6 / 9 + 6 / 8 + 2 / 3) / 3)


def test_balanced_accuracy_weights_all_classes_equally() -> None:
    # recalls 3/4, 3/4 and 1/2
    balanced = score_classes(TARGETS, PREDICTED)["balanced_accuracy"].value
    assert balanced == pytest.approx((3 / 4 + 3 / 4 + 1 / 2) / 3)
    # the third class is predicted and does not occur
    found = score_classes(np.array([0, 0, 1]), np.array([0, 2, 1]))["balanced_accuracy"].value
    assert found == pytest.approx((1 / 2 + 1) / 2)


def test_f1_of_the_positive_class() -> None:
    targets, predicted = binary((6, 3, 1, 2))
    assert score_classes(targets, predicted, 1)["f1"].value == pytest.approx(2 * 6 / (7 + 8))
    assert score_classes(targets, predicted, 0)["f1"].value == pytest.approx(2 * 3 / (4 + 5))
    assert "f1" not in score_classes(targets, predicted)
    few = score_classes(np.array([1, 1]), np.array([1, 1]), 0)["f1"]
    assert few == Score(0.0, 0.0, 0.0)


def test_mcc_of_several_classes() -> None:
    # right * rows - sum of true * predicted = 70 - (4*5 + 4*4 + 2*1) = 32;
    # rows^2 - sum of squares: 100 - (16 + 16 + 4) = 64 and 100 - (25 + 16 + 1) = 58
    mcc = score_classes(TARGETS, PREDICTED)["mcc"].value
    assert mcc == pytest.approx(32 / math.sqrt(64 * 58))


@pytest.mark.parametrize(
    ("targets", "predicted", "accuracy", "macro_f1", "mcc"),
    [
        ([0, 0, 1], [0, 0, 0], 2 / 3, (4 / 5 + 0) / 2, 0.0),
        ([0, 0, 0], [0, 0, 1], 2 / 3, (4 / 5 + 0) / 2, 0.0),
        ([0, 0, 0], [0, 0, 0], 1.0, 1.0, 0.0),
        ([2, 2], [1, 1], 0.0, 0.0, 0.0),
        ([1], [1], 1.0, 1.0, 0.0),
    ],
)
def test_constant_predictions_have_no_correlation_and_no_warning(
    targets: list[int], predicted: list[int], accuracy: float, macro_f1: float, mcc: float
) -> None:
    scores = score_classes(np.array(targets), np.array(predicted))
    assert scores["accuracy"].value == pytest.approx(accuracy)
    assert scores["macro_f1"].value == pytest.approx(macro_f1)
    assert scores["mcc"].value == mcc


CLASSES = st.integers(0, 5)


@settings(deadline=None, max_examples=25)  # the first example imports sklearn
@given(st.lists(st.tuples(CLASSES, CLASSES), min_size=2, max_size=60))
def test_class_metrics_agree_with_sklearn(rows: list[tuple[int, int]]) -> None:
    from sklearn.metrics import matthews_corrcoef, recall_score

    targets, predicted = np.array(rows).T
    scores = score_classes(targets, predicted, 2, resamples=1)
    assert scores["accuracy"].value == pytest.approx(accuracy_score(targets, predicted))
    expected = f1_score(targets, predicted, average="macro", zero_division=0.0)
    assert scores["macro_f1"].value == pytest.approx(expected)
    expected = recall_score(
        targets, predicted, labels=np.unique(targets), average="macro", zero_division=0.0
    )
    assert scores["balanced_accuracy"].value == pytest.approx(expected)
    expected = f1_score(targets == 2, predicted == 2, zero_division=0.0)
    assert scores["f1"].value == pytest.approx(expected)
    if len({*targets, *predicted}) > 1:  # sklearn warns about a single class
        assert scores["mcc"].value == pytest.approx(matthews_corrcoef(targets, predicted))


def test_pearson_and_spearman_differ_by_an_outlier() -> None:
    targets = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    predicted = np.array([2.0, 1.0, 4.0, 3.0, 50.0])
    scores = score_numbers(targets, predicted)
    # from the means 3 and 12: products 20 + 11 + 0 - 9 + 76; squares 10 and 1810
    assert scores["pearson"].value == pytest.approx(98 / math.sqrt(10 * 1810))
    # ranks 2 1 4 3 5: products 2 + 2 + 0 + 0 + 4; squares 10 and 10
    assert scores["spearman"].value == pytest.approx(8 / 10)


def test_spearman_shares_the_ranks_of_ties() -> None:
    scores = score_numbers(np.array([1.0, 2.0, 3.0, 4.0]), np.array([7.0, 7.0, 8.0, 9.0]))
    # ranks 1.5 1.5 3 4: products 1.5 + 0.5 + 0.25 + 2.25; squares 5 and 4.5
    assert scores["spearman"].value == pytest.approx(4.5 / math.sqrt(5 * 4.5))


@pytest.mark.parametrize(
    ("targets", "predicted"),
    [([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]), ([2.0, 2.0], [1.0, 3.0]), ([1.0], [1.0])],
)
def test_constant_numbers_have_no_correlation(targets: list[float], predicted: list[float]) -> None:
    scores = score_numbers(np.array(targets), np.array(predicted))
    assert scores["pearson"] == Score(0.0, 0.0, 0.0)
    assert scores["spearman"] == Score(0.0, 0.0, 0.0)


def test_numbers_that_differ_by_rounding_are_constant() -> None:
    targets = np.array([1.0, 2.0, 3.0, 4.0])
    nearly = np.float32(2.1) + np.float32(2e-7) * np.arange(4, dtype=np.float32)
    assert len(set(nearly)) > 1
    scores = score_numbers(targets, nearly.astype(np.float64))
    assert scores["spearman"] == scores["pearson"] == Score(0.0, 0.0, 0.0)
    # small numbers that differ by much of their size are not
    assert score_numbers(targets, targets * 1e-9)["spearman"].value == pytest.approx(1.0)


def correlated_rows(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Two columns of normal numbers with correlation 0.6 in the long run."""
    random = np.random.default_rng(7)
    targets = random.normal(size=rows)
    return targets, 0.6 * targets + 0.8 * random.normal(size=rows)


def test_the_bootstrap_interval_is_near_the_theoretical_one() -> None:
    targets, predicted = correlated_rows(1000)
    pearson = score_numbers(targets, predicted)["pearson"]
    # Fisher: atanh(r) is normal with deviation 1 / sqrt(rows - 3)
    half = 1.96 / math.sqrt(997)
    low = math.tanh(math.atanh(pearson.value) - half)
    high = math.tanh(math.atanh(pearson.value) + half)
    # a 90 % interval would be 16 % narrower, a 99 % interval 31 % wider
    assert pearson.high - pearson.low == pytest.approx(high - low, rel=0.1)
    assert (pearson.low, pearson.high) == pytest.approx((low, high), abs=0.01)


def test_intervals_resample_rows_with_a_seed_of_their_own() -> None:
    same = np.array([0, 1, 2, 0, 1, 2, 1, 0])
    scores = score_classes(same, same)
    assert scores["macro_f1"] == Score(1.0, 1.0, 1.0)  # each prediction stays with its target
    assert scores["mcc"].value == pytest.approx(1.0)
    np.random.seed(1)
    few = score_classes(TARGETS, PREDICTED)
    np.random.seed(2)
    assert score_classes(TARGETS, PREDICTED) == few
    many = score_classes(np.tile(TARGETS, 20), np.tile(PREDICTED, 20))
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "mcc"):
        assert many[metric].value == pytest.approx(few[metric].value)
        assert few[metric].low < few[metric].value < few[metric].high
        assert many[metric].high - many[metric].low < (few[metric].high - few[metric].low) / 2


def test_numbers_per_label() -> None:
    numbers = per_label(TARGETS, PREDICTED, LABELS)
    assert list(numbers) == ["no", "yes", "maybe"]
    assert numbers["no"] == LabelScore(3 / 5, 3 / 4, pytest.approx(6 / 9), 4)
    assert numbers["yes"] == LabelScore(3 / 4, 3 / 4, pytest.approx(6 / 8), 4)
    assert numbers["maybe"] == LabelScore(1.0, 1 / 2, pytest.approx(2 / 3), 2)
    assert all(type(one.support) is float for one in numbers.values())


def test_a_label_that_never_occurs_keeps_its_place() -> None:
    targets, predicted = np.array([0, 2]), np.array([0, 0])
    numbers = per_label(targets, predicted, LABELS)
    assert numbers["yes"] == LabelScore(0.0, 0.0, 0.0, 0.0)
    assert numbers["maybe"].support == 1.0
    assert confusion(targets, predicted, LABELS) == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_confusion_has_true_labels_in_rows() -> None:
    assert confusion(TARGETS, PREDICTED, LABELS) == [[3, 1, 0], [1, 3, 0], [1, 0, 1]]


# sets of labels: three labels, five rows; the last label never occurs and is never predicted
SETS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
PREDICTED_SETS = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)


def random_sets(rows: int, labels: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    targets = random.random((rows, labels)) < 0.2
    flipped = random.random((rows, labels)) < 0.1
    return targets, targets ^ flipped


def test_label_sets_by_hand() -> None:
    scores = score_label_sets(SETS, PREDICTED_SETS)
    # right 2 + 1 of (3 + 2) true and (2 + 2) predicted
    assert scores["micro_f1"].value == pytest.approx(2 * 3 / (5 + 4))
    # first label 2 * 2 / (3 + 2), second 2 * 1 / (2 + 2); the third is on neither side
    assert scores["macro_f1"].value == pytest.approx((4 / 5 + 2 / 4) / 2)
    assert scores["exact_match"].value == 2 / 5
    interval = binomtest(2, 5).proportion_ci(0.95, method="wilson")
    assert (scores["exact_match"].low, scores["exact_match"].high) == (interval.low, interval.high)


@pytest.mark.parametrize(("rows", "labels"), [(40, 2), (30, 150)])
def test_label_sets_against_scikit_learn(rows: int, labels: int) -> None:
    targets, predicted = random_sets(rows, labels, seed=rows)
    scores = score_label_sets(targets, predicted)
    assert scores["micro_f1"].value == pytest.approx(f1_score(targets, predicted, average="micro"))
    macro = f1_score(targets, predicted, average="macro", zero_division=np.nan)
    assert scores["macro_f1"].value == pytest.approx(macro)
    assert scores["exact_match"].value == pytest.approx(accuracy_score(targets, predicted))


def test_the_interval_equals_that_of_a_plain_bootstrap() -> None:
    """The same seed, one resample after the other, each scored by scikit-learn."""
    targets, predicted = random_sets(80, 5, seed=3)
    scores = score_label_sets(targets, predicted, resamples=60)
    random = np.random.default_rng(0)
    micro, macro = [], []
    for _ in range(60):
        rows = random.integers(0, 80, 80)
        micro.append(f1_score(targets[rows], predicted[rows], average="micro"))
        macro.append(
            f1_score(targets[rows], predicted[rows], average="macro", zero_division=np.nan)
        )
    for name, values in (("micro_f1", micro), ("macro_f1", macro)):
        low, high = np.quantile(values, [0.025, 0.975])
        assert (scores[name].low, scores[name].high) == pytest.approx((low, high))
        assert low < scores[name].value < high


def test_label_sets_without_any_label() -> None:
    nothing = np.zeros((3, 2), dtype=bool)
    scores = score_label_sets(nothing, nothing)
    assert scores["micro_f1"].value == scores["macro_f1"].value == 0.0
    assert scores["exact_match"].value == 1.0
