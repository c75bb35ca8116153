"""Metrics of predictions against labels, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 500

Array = NDArray[np.float64] | NDArray[np.int64]
MetricFunction = Callable[[Array, Array], float]


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value with the interval that holds it in 95 % of such samples."""

    value: float
    low: float
    high: float


def score_classes(
    targets: NDArray[np.int64], predicted: NDArray[np.int64], positive: int | None = None
) -> dict[str, Score]:
    """Accuracy (Wilson interval) and metrics for skewed classes (bootstrap intervals).

    Args:
        positive: the class whose F1 is wanted; None where no class stands out.

    Shapes:
        targets, predicted: (rows,) class numbers
    """
    scores = {"accuracy": share(int((targets == predicted).sum()), len(targets))}
    for name, metric in class_metrics(positive).items():
        scores[name] = _bootstrap(metric, targets, predicted)
    return scores


def class_metrics(positive: int | None = None) -> dict[str, MetricFunction]:
    """The metrics of classes beside accuracy, as functions of targets and predictions."""
    metrics: dict[str, MetricFunction] = {
        "balanced_accuracy": _balanced_accuracy,
        "macro_f1": _macro_f1,
        "mcc": _mcc,
    }
    return metrics if positive is None else metrics | {"f1": partial(_f1, positive)}


def share(hits: int, rows: int) -> Score:
    """The share of rows that are right, with its Wilson interval."""
    from scipy.stats import binomtest

    wilson = binomtest(hits, rows).proportion_ci(CONFIDENCE, method="wilson")
    return Score(hits / rows, float(wilson.low), float(wilson.high))


def score_numbers(targets: NDArray[np.float64], predicted: NDArray[np.float64]) -> dict[str, Score]:
    """Pearson and Spearman correlation with bootstrap intervals.

    Shapes:
        targets, predicted: (rows,)
    """
    return {name: _bootstrap(metric, targets, predicted) for name, metric in NUMBER_METRICS.items()}


def per_class(
    targets: NDArray[np.int64], predicted: NDArray[np.int64], labels: tuple[str, ...]
) -> dict[str, Mapping[str, float]]:
    """Precision, recall, F1 and support of every label.

    Shapes:
        targets, predicted: (rows,) class numbers, or (rows, labels) of 0 and 1
    """
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        targets, predicted, labels=range(len(labels)), zero_division=0.0
    )
    names = ("precision", "recall", "f1", "support")
    return {
        label: {name: float(column[row]) for name, column in zip(names, columns, strict=True)}
        for row, label in enumerate(labels)
    }


def confusion(
    targets: NDArray[np.int64], predicted: NDArray[np.int64], labels: tuple[str, ...]
) -> list[list[int]]:
    """Counts by true label (rows) and predicted label (columns)."""
    from sklearn.metrics import confusion_matrix

    counts: list[list[int]] = confusion_matrix(
        targets, predicted, labels=range(len(labels))
    ).tolist()
    return counts


def _bootstrap(metric: MetricFunction, targets: Array, predicted: Array) -> Score:
    """Percentile interval over seeded resamples of the rows (Efron 1979)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resample(metric, targets, predicted), [tail, 1 - tail])
    return Score(metric(targets, predicted), float(low), float(high))


def resample(
    metric: MetricFunction, targets: Array, predicted: Array, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """The metric on seeded resamples of the rows, the same ones for any model: (resamples,)."""
    random = np.random.default_rng(0)
    values = np.empty(resamples)
    for position in range(resamples):
        rows = random.integers(0, len(targets), len(targets))
        values[position] = metric(targets[rows], predicted[rows])
    return values


def _counts(targets: Array, predicted: Array) -> NDArray[np.float64]:
    """Confusion counts (true, predicted); by hand, as the bootstrap needs them 1000 times."""
    classes = int(max(targets.max(), predicted.max())) + 1
    cells = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.float64)


def _macro_f1(targets: Array, predicted: Array) -> float:
    """Mean of 2 TP / (true + predicted) over the classes that occur on either side."""
    counts = _counts(targets, predicted)
    sizes = counts.sum(axis=0) + counts.sum(axis=1)
    occurs = sizes > 0
    return float((2 * counts.diagonal()[occurs] / sizes[occurs]).mean())


def _balanced_accuracy(targets: Array, predicted: Array) -> float:
    """Mean recall over the classes that occur among the targets (Brodersen et al. 2010)."""
    counts = _counts(targets, predicted)
    sizes = counts.sum(axis=1)
    occurs = sizes > 0
    return float((counts.diagonal()[occurs] / sizes[occurs]).mean())


def _f1(positive: int, targets: Array, predicted: Array) -> float:
    """2 TP / (true + predicted) of one class; 0 where it neither occurs nor is answered."""
    true, answered = targets == positive, predicted == positive
    size = int(true.sum() + answered.sum())
    return 2 * int((true & answered).sum()) / size if size else 0.0


def _mcc(targets: Array, predicted: Array) -> float:
    """Correlation of two class columns (Gorodkin 2004); 0 when one side is constant."""
    counts = _counts(targets, predicted)
    rows, true, answered = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    spread = (rows**2 - true @ true) * (rows**2 - answered @ answered)
    if spread == 0:
        return 0.0
    return float((counts.trace() * rows - true @ answered) / np.sqrt(spread))


def _pearson(targets: Array, predicted: Array) -> float:
    """Pearson correlation; 0 where it is undefined because one side is constant."""
    if np.ptp(targets) == 0 or _is_constant(predicted):
        return 0.0
    return float(np.corrcoef(targets, predicted)[0, 1])


def _spearman(targets: Array, predicted: Array) -> float:
    """Pearson correlation of the ranks; 0 where one side is constant."""
    from scipy.stats import rankdata

    if np.ptp(targets) == 0 or _is_constant(predicted):
        return 0.0
    return float(np.corrcoef(rankdata(targets), rankdata(predicted))[0, 1])


def _is_constant(predicted: Array) -> bool:
    """Whether outputs differ by no more than the rounding of float32, in which models compute."""
    return bool(np.ptp(predicted) <= 1e-6 * np.abs(predicted).max())


NUMBER_METRICS: Mapping[str, MetricFunction] = {"pearson": _pearson, "spearman": _spearman}
