"""Metrics of sets of labels against sets of labels, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from factory.evaluation.metrics import CONFIDENCE, RESAMPLES, Score, share

Sums = NDArray[np.float64]  # (..., 3, labels): rows with the label right, true, answered
CHUNK = 50


def score_label_sets(targets: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> dict[str, Score]:
    """Micro and macro F1 (bootstrap intervals) and share of rows right in every label (Wilson).

    Micro F1 counts every (row, label) alike: 2 TP / (true + answered) over all labels. Macro F1 is
    the mean of the labels' own, over the labels that occur on either side.

    Shapes:
        targets, predicted: (rows, labels)
    """
    counts = np.stack([targets & predicted, targets, predicted], axis=1).astype(np.float64)
    resampled = _resampled_sums(counts)
    exact = int((targets == predicted).all(axis=1).sum())
    return {
        "micro_f1": _score(_micro_f1, counts.sum(axis=0), resampled),
        "macro_f1": _score(_macro_f1, counts.sum(axis=0), resampled),
        "exact_match": share(exact, len(targets)),
    }


def resample_label_sets(
    targets: NDArray[np.bool_], predicted: NDArray[np.bool_], resamples: int = RESAMPLES
) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Micro and macro F1, each with its values on the same seeded resamples for any model.

    Shapes:
        targets, predicted: (rows, labels); the resampled values: (resamples,)
    """
    counts = np.stack([targets & predicted, targets, predicted], axis=1).astype(np.float64)
    sums = _resampled_sums(counts, resamples)
    metrics = {"micro_f1": _micro_f1, "macro_f1": _macro_f1}
    return {
        name: (float(metric(counts.sum(axis=0))), metric(sums)) for name, metric in metrics.items()
    }


def best_constant_micro_f1(targets: NDArray[np.bool_]) -> float:
    """Micro F1 of the best answer that is the same set of labels for every row.

    Of all sets of k labels the k most frequent hit most often, so one set per k is compared:
    2 * (their rows) / (k * rows + all labels of all rows).

    Shapes:
        targets: (rows, labels)
    """
    sizes = np.sort(targets.sum(axis=0))[::-1]
    if not sizes.any():
        return 0.0
    chosen = np.arange(1, len(sizes) + 1)
    return float((2 * np.cumsum(sizes) / (chosen * len(targets) + sizes.sum())).max())


def _resampled_sums(counts: NDArray[np.float64], resamples: int = RESAMPLES) -> Sums:
    """Sums over seeded resamples of the rows: (resamples, 3, labels).

    A resample is the number of times it drew each row, which makes its sums a matrix product.
    """
    random = np.random.default_rng(0)
    rows = len(counts)
    flat = counts.reshape(rows, -1)
    parts = []
    for start in range(0, resamples, CHUNK):
        weights = [
            np.bincount(random.integers(0, rows, rows), minlength=rows)
            for _ in range(min(CHUNK, resamples - start))
        ]
        parts.append(np.array(weights, dtype=np.float64) @ flat)
    return np.concatenate(parts).reshape(resamples, *counts.shape[1:])


def _score(metric: Callable[[Sums], NDArray[np.float64]], sums: Sums, resampled: Sums) -> Score:
    """The metric with its percentile interval over the resamples (Efron 1979)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(metric(resampled), [tail, 1 - tail])
    return Score(float(metric(sums)), float(low), float(high))


def _micro_f1(sums: Sums) -> NDArray[np.float64]:
    right, true, answered = np.moveaxis(sums.sum(axis=-1), -1, 0)
    return _ratio(2 * right, true + answered)


def _macro_f1(sums: Sums) -> NDArray[np.float64]:
    right, true, answered = np.moveaxis(sums, -2, 0)
    sizes = true + answered
    return _ratio(_ratio(2 * right, sizes).sum(axis=-1), (sizes > 0).sum(axis=-1))


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quotient, and 0 where nothing is divided by nothing."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)
