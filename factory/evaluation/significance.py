"""Whether two models differ on one split: McNemar's test and the paired bootstrap."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.evaluation.metrics import Resampled, equal_rows, interval
from factory.models.tasks import TASKS
from serving.bundle import Task

RESAMPLES = 2000
MCNEMAR = "McNemar, exact"
BOOTSTRAP = "paired bootstrap"

Rows = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two models on the same rows.

    Args:
        low, high: 95 % interval of `new` minus `old`, by resampling the rows of both together.
        p_value: probability of a difference at least this large in either direction if both
            models were equally good.
        p_not_worse: probability of a `new` at least this far below `old` if both models were
            equally good; if it is small, the new model is worse.
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

    def to_facts(self) -> dict[str, Any]:
        """The difference as JSON data."""
        return {**asdict(self), "difference": self.difference}


def differences(
    task: Task, targets: Rows, old: Rows, new: Rows, positive: int | None = None
) -> list[Difference]:
    """Every metric of the task, the gate's default first; as `difference`."""
    one = TASKS[task]
    before, after = (one.resample(targets, rows, positive, RESAMPLES) for rows in (old, new))
    found = [_from_resamples(name, before[name], after[name]) for name in before]
    if one.row_metric is not None:
        right = (equal_rows(rows, targets) for rows in (old, new))
        found.append(mcnemar(one.row_metric, *right))
    return sorted(found, key=lambda difference: one.traits.metrics.index(difference.metric))


def difference(
    metric: str, task: Task, targets: Rows, old: Rows, new: Rows, positive: int | None = None
) -> Difference:
    """One metric of the task: shares of right rows by McNemar's test, the others by bootstrap.

    Args:
        positive: the positive class of the metric f1.

    Shapes:
        targets, old, new: (rows,) class numbers or values; (rows, labels) booleans for multilabel
    """
    one = TASKS[task]
    if metric == one.row_metric:
        return mcnemar(metric, equal_rows(old, targets), equal_rows(new, targets))
    before, after = (one.resample(targets, rows, positive, RESAMPLES) for rows in (old, new))
    return _from_resamples(metric, before[metric], after[metric])


def mcnemar(metric: str, old_right: NDArray[np.bool_], new_right: NDArray[np.bool_]) -> Difference:
    """McNemar's test of two shares of the same rows (McNemar 1947), in its exact form.

    Only rows that one model predicts right and the other wrong carry information. If both models
    were equally good, each of these rows would go either way with equal probability, so the losses
    would follow Binomial(rows, 1/2). The exact form is needed where these rows are few.

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
    # resampling rows amounts to drawing how many of each kind there are
    shares = np.array([lost, gained, rows - lost - gained]) / rows
    drawn = np.random.default_rng(0).multinomial(rows, shares, RESAMPLES)
    low, high = interval((drawn[:, 1] - drawn[:, 0]) / rows)
    old, new = float(old_right.mean()), float(new_right.mean())
    return Difference(metric, old, new, low, high, two_sided, worse, MCNEMAR)


def _from_resamples(metric: str, old: Resampled, new: Resampled) -> Difference:
    """Interval and p values of a difference from its values on the same resamples.

    The p values are shares of the resamples on the other side of zero. The data themselves count as
    one more resample (Davison and Hinkley 1997, section 4.2), so that no p value is 0.
    """
    drawn = new[1] - old[1]
    low, high = interval(drawn)
    not_worse = (1 + int((drawn >= 0).sum())) / (RESAMPLES + 1)
    not_better = (1 + int((drawn <= 0).sum())) / (RESAMPLES + 1)
    two_sided = min(1.0, 2 * min(not_worse, not_better))
    return Difference(metric, old[0], new[0], low, high, two_sided, not_worse, BOOTSTRAP)
