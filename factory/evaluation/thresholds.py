"""Decision thresholds of multilabel models: tuned per label on a split, or one for all labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.predictor import sigmoid

NEUTRAL = 0.5


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The probability from which each label applies.

    Args:
        values: one per label, in the order of the labels.
        source: how they were found, for messages.
    """

    values: tuple[float, ...]
    source: str

    def to_facts(self, labels: tuple[str, ...]) -> dict[str, Any]:
        """The thresholds as JSON data."""
        by_label = dict(zip(labels, self.values, strict=True))
        return {"thresholds": by_label, "thresholds_source": self.source}


def fixed_thresholds(value: float, labels: int) -> Thresholds:
    """The same threshold for every label."""
    return Thresholds((value,) * labels, f"{value:g} for every label")


def tuned_thresholds(
    logits: NDArray[np.float32], applies: NDArray[np.bool_], split: str, goal: str
) -> Thresholds:
    """The thresholds with the best score on a split.

    Args:
        goal: micro_f1, over all labels together, or macro_f1, the F1 of each label by itself.

    Shapes:
        logits, applies: (rows, labels)
    """
    columns = list(zip(sigmoid(logits).T, applies.T, strict=True))
    if goal == "macro_f1":
        values = tuple(tune_threshold(column, wanted) for column, wanted in columns)
        return Thresholds(values, f"tuned on {split} for the F1 of each label")
    gaps = [_gaps(column, wanted) for column, wanted in columns]
    return Thresholds(_best_micro_f1(gaps, int(applies.sum())), f"tuned on {split} for micro F1")


def tune_threshold(probabilities: NDArray[np.float64], applies: NDArray[np.bool_]) -> float:
    """The threshold with the best F1 of one label, where a row at or above it has the label.

    For a label without rows it is 0.5.

    Shapes:
        probabilities, applies: (rows,)
    """
    if not applies.any():
        return NEUTRAL
    gaps = _gaps(probabilities, applies)
    return _threshold(gaps, 2 * gaps.hits / (gaps.answers + applies.sum()))


@dataclass(frozen=True, slots=True)
class _Gaps:
    """Gaps between neighbouring probabilities of a label; thresholds within a gap are equivalent.

    Shapes:
        upper, lower: (gaps,) the probabilities around each; from `upper` on the label applies
        answers, hits: (gaps,) rows predicted to have the label, and those of them that have it
    """

    upper: NDArray[np.float64]
    lower: NDArray[np.float64]
    answers: NDArray[np.int64]
    hits: NDArray[np.int64]


def _gaps(probabilities: NDArray[np.float64], applies: NDArray[np.bool_]) -> _Gaps:
    order = np.argsort(-probabilities, kind="stable")
    falling = np.concatenate([[1.0], probabilities[order], [0.0]])
    hits = np.concatenate([[0], np.cumsum(applies[order])])
    answers = np.arange(len(hits))
    # rows of equal probability stay together, and no probability is above 1
    between = (np.diff(falling) < 0) | (answers == len(order))
    answers = answers[between]
    return _Gaps(falling[answers], falling[answers + 1], answers, hits[answers])


def _threshold(gaps: _Gaps, score: NDArray[np.float64]) -> float:
    """A threshold in the gap with the highest score.

    The threshold is 0.5 in its own gap and the middle in any other, which leaves the most room for
    rounding in other runtimes. Of equally good gaps, the threshold closest to 0.5 is used, then the
    higher one.
    """
    best = score == score.max()
    upper, lower = gaps.upper[best], gaps.lower[best]
    middle = (upper + lower) / 2
    candidates = np.where(middle > lower, middle, upper)  # neighbouring floats have no middle
    candidates = np.where((lower < NEUTRAL) & (upper >= NEUTRAL), NEUTRAL, candidates)
    distance = np.abs(candidates - NEUTRAL)
    return float(candidates[distance == distance.min()].max())


def _best_micro_f1(gaps: list[_Gaps], wanted: int) -> tuple[float, ...]:
    """One threshold per label, so that micro F1 over all labels is maximal.

    Micro F1 is a ratio of sums over the labels, 2 * hits / (answers + wanted). The greatest value F
    of such a ratio is where the greatest 2 * hits - F * answers equals F * wanted (Dinkelbach,
    Management Science 13, 1967), and that difference is maximized label by label.
    """
    reached = 0.0
    while True:
        scores = [2 * label.hits - reached * label.answers for label in gaps]
        values = tuple(map(_threshold, gaps, scores))
        chosen = [int(score.argmax()) for score in scores]
        hits = sum(int(label.hits[gap]) for label, gap in zip(gaps, chosen, strict=True))
        answers = sum(int(label.answers[gap]) for label, gap in zip(gaps, chosen, strict=True))
        better = 2 * hits / (answers + wanted) if wanted else 0.0
        if better <= reached:
            return values
        reached = better


def decide(logits: NDArray[np.float32], thresholds: Thresholds) -> NDArray[np.bool_]:
    """Which labels apply: (rows, labels)."""
    decided: NDArray[np.bool_] = sigmoid(logits) >= np.array(thresholds.values)
    return decided
