"""Metrics of predictions against targets, and their values on resamples of the rows.

Every bootstrap starts from the same seed, so any two models are scored on the same resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 500
CHUNK = 50

Rows = NDArray[Any]
Resampled = tuple[float, NDArray[np.float64]]  # the metric, and the metric on each resample
Counts = NDArray[np.float64]  # (true classes, predicted classes)
Sums = NDArray[np.float64]  # (..., 3, labels): rows with the label right, true, predicted


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LabelScore:
    """Precision, recall and F1 of one label; `support` is the number of rows that have it."""

    precision: float
    recall: float
    f1: float
    support: float


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Percentile interval over resamples (Efron 1979)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def equal_rows(one: Rows, other: Rows) -> NDArray[np.bool_]:
    """Whether two arrays of predictions agree in a row, in all labels where there are several.

    Shapes:
        one, other: (rows,) or (rows, labels); returns (rows,)
    """
    equal: NDArray[np.bool_] = (one == other).reshape(len(one), -1).all(axis=1)
    return equal


def share(hits: int, rows: int) -> Score:
    """A share of rows with its Wilson interval."""
    from scipy.stats import binomtest

    wilson = binomtest(hits, rows).proportion_ci(CONFIDENCE, method="wilson")
    return Score(hits / rows, float(wilson.low), float(wilson.high))


def per_label(targets: Rows, predicted: Rows, labels: tuple[str, ...]) -> dict[str, LabelScore]:
    """Precision, recall, F1 and support of every label.

    Shapes:
        targets, predicted: (rows,) class numbers, or (rows, labels) booleans
    """
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        targets.astype(np.int64),
        predicted.astype(np.int64),
        labels=range(len(labels)),
        zero_division=0.0,
    )
    return {
        label: LabelScore(*(float(column[row]) for column in columns))
        for row, label in enumerate(labels)
    }


def confusion(targets: Rows, predicted: Rows, labels: tuple[str, ...]) -> list[list[int]]:
    """Rows by true label (outer list) and predicted label (inner lists)."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(targets, predicted, labels=range(len(labels)))
    return counts.tolist()  # type: ignore[no-any-return]


def positive_class(labels: tuple[str, ...], positive_label: str | None) -> int | None:
    """Index of the positive class of binary F1; None unless there are exactly two labels."""
    if len(labels) != 2:
        return None
    return labels.index(positive_label) if positive_label in labels else 1


def resample_classes(
    targets: Rows, predicted: Rows, positive: int | None, resamples: int
) -> dict[str, Resampled]:
    """Balanced accuracy, macro F1, MCC, and the F1 of the positive class.

    Args:
        positive: None leaves out `f1`.

    Shapes:
        targets, predicted: (rows,) class numbers
    """
    metrics: dict[str, Callable[[Counts], float]] = {
        "balanced_accuracy": mean_recall,
        "macro_f1": _macro_f1,
        "mcc": _mcc,
    }
    if positive is not None:
        metrics["f1"] = partial(_f1, positive)
    classes = int(max(targets.max(), predicted.max())) + 1
    cells = targets * classes + predicted

    def count(chosen: Rows) -> Counts:
        counts = np.bincount(chosen, minlength=classes * classes)
        return counts.reshape(classes, classes).astype(np.float64)

    values: dict[str, list[float]] = {name: [] for name in metrics}
    for drawn in _draws(len(cells), resamples):
        for counts in map(count, cells[drawn]):
            for name, metric in metrics.items():
                values[name].append(metric(counts))
    all_rows = count(cells)
    return {name: (metric(all_rows), np.array(values[name])) for name, metric in metrics.items()}


def resample_numbers(
    targets: Rows, predicted: Rows, positive: int | None, resamples: int
) -> dict[str, Resampled]:
    """Spearman and Pearson correlation; `positive` is unused.

    Shapes:
        targets, predicted: (rows,)
    """
    drawn = list(_draws(len(targets), resamples))
    metrics = {"spearman": _spearman, "pearson": _pearson}
    return {
        name: (
            float(metric(targets, predicted)),
            np.concatenate([metric(targets[rows], predicted[rows]) for rows in drawn]),
        )
        for name, metric in metrics.items()
    }


def resample_label_sets(
    targets: Rows, predicted: Rows, positive: int | None, resamples: int
) -> dict[str, Resampled]:
    """Micro and macro F1 of sets of labels; `positive` is unused.

    Micro F1 counts every (row, label) equally: 2 TP / (true + predicted) over all labels. Macro F1
    is the mean of the labels' own, over the labels that occur on either side.

    Shapes:
        targets, predicted: (rows, labels) booleans
    """
    counts = np.stack([targets & predicted, targets, predicted], axis=1).astype(np.float64)
    rows = len(counts)
    parts = []
    for drawn in _draws(rows, resamples):
        # how often each row was drawn makes the sums of the resamples a matrix product
        times = np.array([np.bincount(one, minlength=rows) for one in drawn], dtype=np.float64)
        parts.append(times @ counts.reshape(rows, -1))
    sums = np.concatenate(parts).reshape(resamples, *counts.shape[1:])
    metrics = {"micro_f1": _micro_f1_of_sets, "macro_f1": _macro_f1_of_sets}
    return {
        name: (float(metric(counts.sum(axis=0))), metric(sums)) for name, metric in metrics.items()
    }


def _draws(rows: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Positions of resampled rows in blocks of (resamples, rows), the same in every call."""
    random = np.random.default_rng(0)
    for start in range(0, resamples, CHUNK):
        yield random.integers(0, rows, (min(CHUNK, resamples - start), rows))


def mean_recall(counts: Rows) -> float:
    """Mean recall over the classes that occur among the targets (Brodersen et al. 2010)."""
    sizes = counts.sum(axis=1)
    occurs = sizes > 0
    return float((counts.diagonal()[occurs] / sizes[occurs]).mean())


def _macro_f1(counts: Counts) -> float:
    """Mean of 2 TP / (true + predicted) over the classes that occur on either side."""
    sizes = counts.sum(axis=0) + counts.sum(axis=1)
    occurs = sizes > 0
    return float((2 * counts.diagonal()[occurs] / sizes[occurs]).mean())


def _f1(positive: int, counts: Counts) -> float:
    """2 TP / (true + predicted) of one class; 0 where it neither occurs nor is predicted."""
    if positive >= len(counts):
        return 0.0
    size = counts[positive].sum() + counts[:, positive].sum()
    return float(2 * counts[positive, positive] / size) if size else 0.0


def _mcc(counts: Counts) -> float:
    """Correlation of true and predicted classes (Gorodkin 2004); 0 when one side is constant."""
    rows, true, predicted = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    spread = (rows**2 - true @ true) * (rows**2 - predicted @ predicted)
    if spread == 0:
        return 0.0
    return float((counts.trace() * rows - true @ predicted) / np.sqrt(spread))


def _spearman(targets: Rows, predicted: Rows) -> NDArray[np.float64]:
    """Pearson correlation of the ranks over the last axis; 0 where one side is constant."""
    from scipy.stats import rankdata

    ranks = (rankdata(side, axis=-1) for side in (targets, predicted))
    return np.where(_vary(targets, predicted), _pearson(*ranks), 0.0)


def _pearson(targets: Rows, predicted: Rows) -> NDArray[np.float64]:
    """Pearson correlation over the last axis; 0 where one side is constant."""
    one, other = (side - side.mean(axis=-1, keepdims=True) for side in (targets, predicted))
    spread = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
    return _ratio((one * other).sum(axis=-1), spread, _vary(targets, predicted))


def _vary(targets: Rows, predicted: Rows) -> Rows:
    """Whether neither side is constant; predictions may differ by the rounding of float32."""
    rounding = 1e-6 * np.abs(predicted).max(axis=-1)
    vary: Rows = (np.ptp(targets, axis=-1) > 0) & (np.ptp(predicted, axis=-1) > rounding)
    return vary


def _micro_f1_of_sets(sums: Sums) -> NDArray[np.float64]:
    right, true, predicted = np.moveaxis(sums.sum(axis=-1), -1, 0)
    size = true + predicted
    return _ratio(2 * right, size, size > 0)


def _macro_f1_of_sets(sums: Sums) -> NDArray[np.float64]:
    right, true, predicted = np.moveaxis(sums, -2, 0)
    sizes = true + predicted
    occurring = (sizes > 0).sum(axis=-1)
    return _ratio(_ratio(2 * right, sizes, sizes > 0).sum(axis=-1), occurring, occurring > 0)


def _ratio(part: Rows, whole: Rows, defined: Rows) -> NDArray[np.float64]:
    """The quotient where it is defined, 0 elsewhere."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=defined)
