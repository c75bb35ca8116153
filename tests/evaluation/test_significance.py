"""Significance, compared with statsmodels, scipy, values by hand and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from factory.evaluation.evaluate import score_predictions
from factory.evaluation.significance import difference, differences, mcnemar
from factory.recipe.task import TASK_TRAITS


def right(lost: int, gained: int, both: int = 50, neither: int = 40) -> list[NDArray[np.bool_]]:
    """Whether the old and the new model are right, row by row."""
    old = [True] * (both + lost) + [False] * (gained + neither)
    new = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return [np.array(old), np.array(new)]


# p values of statsmodels 0.15, mcnemar(table, exact=True)
@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    [
        (8, 6, 0.79052734375),
        (10, 21, 0.07075554598122835),
        (1, 9, 0.021484375),
        (0, 5, 0.0625),
        (30, 12, 0.007915897334896727),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_equals_statsmodels(lost: int, gained: int, p_value: float) -> None:
    rows = 90 + lost + gained
    found = mcnemar("accuracy", *right(lost, gained))
    assert found.p_value == pytest.approx(p_value, abs=1e-12)
    assert found.difference == pytest.approx((gained - lost) / rows)
    assert (found.old, found.new) == pytest.approx(((50 + lost) / rows, (50 + gained) / rows))


@pytest.mark.parametrize(
    ("lost", "gained", "worse"),
    # sums of binomial coefficients by hand: P(at least `lost` of n), each way equally likely
    [(5, 0, 1 / 32), (0, 5, 1.0), (4, 1, 6 / 32), (2, 2, 11 / 16), (0, 0, 1.0)],
)
def test_the_one_sided_p_is_small_only_for_a_worse_model(
    lost: int, gained: int, worse: float
) -> None:
    assert mcnemar("accuracy", *right(lost, gained)).p_not_worse == pytest.approx(worse)


def test_few_of_many_equal_models_are_called_worse() -> None:
    """A test at 5 % errs at most in about 5 % of the cases."""
    random = np.random.default_rng(7)
    alarms = 0
    for _ in range(200):
        old, new = random.random((2, 150)) < 0.8
        alarms += mcnemar("accuracy", old, new).p_not_worse < 0.05
    assert alarms <= 15


def test_the_interval_of_a_share_is_near_the_normal_one() -> None:
    found = mcnemar("accuracy", *right(40, 60, both=500, neither=400))
    rows, expected = 1000, 0.02
    deviation = math.sqrt((0.1 - expected**2) / rows)
    assert found.low == pytest.approx(expected - 1.96 * deviation, abs=0.002)
    assert found.high == pytest.approx(expected + 1.96 * deviation, abs=0.002)


def noisy(seed: int, noise: float, rows: int = 400) -> list[NDArray[np.float64]]:
    """Numbers, a fixed guess at them, and another with its own noise."""
    random = np.random.default_rng(seed)
    targets = random.normal(size=rows)
    return [targets, *(targets + random.normal(size=rows) * scale for scale in (1.0, noise))]


def test_the_bootstrap_is_near_scipys() -> None:
    from scipy.stats import bootstrap

    targets, old, new = noisy(3, 1.2)

    def statistic(t: NDArray[np.float64], o: NDArray[np.float64], n: NDArray[np.float64]) -> float:
        return float(np.corrcoef(t, n)[0, 1] - np.corrcoef(t, o)[0, 1])

    expected = bootstrap(
        (targets, old, new), statistic, paired=True, vectorized=False, method="percentile",
        n_resamples=2000, rng=np.random.default_rng(5),
    )  # fmt: skip
    found = difference("pearson", "regression", targets, old, new)
    low, high = expected.confidence_interval
    width = high - low
    assert found.low == pytest.approx(low, abs=0.1 * width)
    assert found.high == pytest.approx(high, abs=0.1 * width)
    drawn = expected.bootstrap_distribution
    assert found.p_not_worse == pytest.approx((drawn >= 0).mean(), abs=0.02)
    assert found.p_value == pytest.approx(
        2 * min((drawn >= 0).mean(), (drawn <= 0).mean()), abs=0.04
    )


@pytest.mark.parametrize(("noise", "p", "worse"), [(3.0, 0.001, 0.001), (0.2, 0.001, 1.0)])
def test_clear_differences_are_found_in_their_direction(
    noise: float, p: float, worse: float
) -> None:
    for found in differences("regression", *noisy(1, noise)):
        assert found.p_value == pytest.approx(p, abs=1e-3)
        assert found.p_not_worse == pytest.approx(worse, abs=1e-3)
        assert found.p_value > 0


def test_equal_models_do_not_differ() -> None:
    random = np.random.default_rng(0)
    targets, answers = random.integers(0, 3, 200), random.integers(0, 3, 200)
    for found in differences("classification", targets, answers, answers):
        assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
        assert (found.p_value, found.p_not_worse) == (1.0, 1.0)


@pytest.mark.parametrize("task", ["classification", "regression", "multilabel"])
def test_every_metric_has_the_value_of_the_evaluation(task: str) -> None:
    random = np.random.default_rng(2)
    if task == "multilabel":
        targets, old, new = random.random((3, 60, 4)) < 0.4
    elif task == "regression":
        targets, old, new = noisy(2, 0.5, rows=60)
    else:
        targets, old, new = random.integers(0, 2, (3, 60))
    scores = [score_predictions(task, targets, rows, 1) for rows in (old, new)]  # type: ignore[arg-type]
    found = differences(task, targets, old, new, positive=1)  # type: ignore[arg-type]
    assert [one.metric for one in found] == list(TASK_TRAITS[task].metrics)
    for one in found:
        assert one.old == pytest.approx(scores[0][one.metric].value)
        assert one.new == pytest.approx(scores[1][one.metric].value)
        assert one.low <= one.difference <= one.high


def test_the_rows_are_resampled_together() -> None:
    """Models with errors in the same rows differ by little, even if each score varies much."""
    random = np.random.default_rng(4)
    targets = random.integers(0, 2, 300)
    hard = random.random(300) < 0.4
    old = np.where(hard, 1 - targets, targets)
    new = old.copy()
    new[0] = 1 - new[0]
    found = difference("macro_f1", "classification", targets, old, new)
    alone = score_predictions("classification", targets, old)["macro_f1"]
    assert found.high - found.low < 0.2 * (alone.high - alone.low)
