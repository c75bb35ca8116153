"""Whether two models differ on one split: McNemar's test and the paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Task
from factory.evaluation.metrics import CONFIDENCE, NUMBER_METRICS, class_metrics, resample
from factory.evaluation.multilabel_metrics import resample_label_sets
from factory.recipe.gate import TASK_METRICS

RESAMPLES = 2000
MCNEMAR = "McNemar, exact"
BOOTSTRAP = "paired bootstrap"

Rows = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two models on the same rows.

    Args:
        low, high: 95 % interval of `new` minus `old`, by resampling the rows of both together.
        p_value: probability of a difference this large either way, were they equally good.
        p_not_worse: probability of a `new` this far below `old`, or further, were they equally
            good; a small one says that the new model is worse.
    """

    metric: str
    old: float
    new: float
    low: float
    high: float
    p_value: float
    p_not_worse: float
    test: str

    @property
    def difference(self) -> float:
        """New minus old."""
        return self.new - self.old

    def facts(self) -> dict[str, Any]:
        """The difference as JSON data."""
        return {**asdict(self), "difference": self.difference}


def differences(
    task: Task, targets: Rows, old: Rows, new: Rows, positive: int | None = None
) -> list[Difference]:
    """Every metric of the task, the usual one of a gate first; as `difference`."""
    metrics = [name for name in TASK_METRICS[task] if name != "f1" or positive is not None]
    return [difference(name, task, targets, old, new, positive) for name in metrics]


def difference(
    metric: str, task: Task, targets: Rows, old: Rows, new: Rows, positive: int | None = None
) -> Difference:
    """One metric of the task: shares of right rows by McNemar's test, the others by bootstrap.

    Args:
        positive: the class whose F1 is wanted; None where no class stands out.

    Shapes:
        targets, old, new: (rows,) class numbers or values; (rows, labels) booleans for multilabel
    """
    if metric == "accuracy":
        return mcnemar(metric, old == targets, new == targets)
    if metric == "exact_match":
        return mcnemar(metric, (old == targets).all(axis=1), (new == targets).all(axis=1))
    if task == "multilabel":
        sets = [resample_label_sets(targets, answers, RESAMPLES) for answers in (old, new)]
        return _from_resamples(metric, sets[0][metric], sets[1][metric])
    function = (NUMBER_METRICS if task == "regression" else class_metrics(positive))[metric]
    return _resampled(metric, function, targets, old, new)


def mcnemar(metric: str, old_right: NDArray[np.bool_], new_right: NDArray[np.bool_]) -> Difference:
    """McNemar's test of two shares of the same rows (McNemar 1947), in its exact form.

    Only rows that one model answers right and the other wrong say anything. Were both equally good,
    each of these would be as likely to go either way, so the losses follow Binomial(rows, 1/2);
    exact at any number of rows, and needed where there are few.

    Shapes:
        old_right, new_right: (rows,)
    """
    from scipy.stats import binomtest

    rows = len(old_right)
    lost = int((old_right & ~new_right).sum())
    gained = int((~old_right & new_right).sum())
    two_sided, worse = 1.0, 1.0
    if lost + gained:
        two_sided = float(binomtest(lost, lost + gained, 0.5).pvalue)
        worse = float(binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue)
    # drawing rows anew is drawing how many of each kind there are
    shares = np.array([lost, gained, rows - lost - gained]) / rows
    drawn = np.random.default_rng(0).multinomial(rows, shares, RESAMPLES)
    low, high = _interval((drawn[:, 1] - drawn[:, 0]) / rows)
    old, new = float(old_right.mean()), float(new_right.mean())
    return Difference(metric, old, new, low, high, two_sided, worse, MCNEMAR)


def _resampled(
    name: str, metric: Callable[[Rows, Rows], float], targets: Rows, old: Rows, new: Rows
) -> Difference:
    both = [
        (metric(targets, answers), resample(metric, targets, answers, RESAMPLES))
        for answers in (old, new)
    ]
    return _from_resamples(name, *both)


def _from_resamples(
    metric: str, old: tuple[float, NDArray[np.float64]], new: tuple[float, NDArray[np.float64]]
) -> Difference:
    """Interval and p values of a difference from its values on the same resamples.

    The p values are shares of the resamples on the other side of zero, with one resample more that
    stands for the data themselves (Davison and Hinkley 1997, section 4.2), so that none is 0.
    """
    drawn = new[1] - old[1]
    low, high = _interval(drawn)
    not_worse = (1 + int((drawn >= 0).sum())) / (RESAMPLES + 1)
    not_better = (1 + int((drawn <= 0).sum())) / (RESAMPLES + 1)
    two_sided = min(1.0, 2 * min(not_worse, not_better))
    return Difference(metric, old[0], new[0], low, high, two_sided, not_worse, BOOTSTRAP)


def _interval(drawn: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
