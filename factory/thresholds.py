"""Per-label decision thresholds: tuned on a split, or one number for every label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.predictor import sigmoid

NEUTRAL = 0.5


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The probability from which each label applies, and where the numbers come from.

    Args:
        values: one per label, in the order of the labels.
        source: how they were found, in words.
    """

    values: tuple[float, ...]
    source: str

    def facts(self, labels: tuple[str, ...]) -> dict[str, Any]:
        """The thresholds as JSON data."""
        by_label = dict(zip(labels, self.values, strict=True))
        return {"thresholds": by_label, "thresholds_source": self.source}


def fixed_thresholds(value: float, labels: int) -> Thresholds:
    """The same threshold for every label."""
    return Thresholds((value,) * labels, f"{value:g} for every label")


def tuned_thresholds(
    logits: NDArray[np.float32], applies: NDArray[np.bool_], split: str
) -> Thresholds:
    """The threshold of each label with the best F1 of that label on a split.

    Shapes:
        logits, applies: (rows, labels)
    """
    probabilities = sigmoid(logits)
    values = tuple(
        tune_threshold(column, wanted)
        for column, wanted in zip(probabilities.T, applies.T, strict=True)
    )
    return Thresholds(values, f"tuned per label on {split}")


def tune_threshold(probabilities: NDArray[np.float64], applies: NDArray[np.bool_]) -> float:
    """The threshold with the best F1 of one label, where a row at or above it has the label.

    Between two neighbouring probabilities every threshold decides alike; 0.5 stands for its gap
    and the middle for any other, which leaves the most room for another runtime's rounding. Of
    equally good gaps the one whose threshold is nearest 0.5 wins, then the higher. A label that no
    row has is left at 0.5.

    Shapes:
        probabilities, applies: (rows,)
    """
    if not applies.any():
        return NEUTRAL
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order]
    hits = np.cumsum(applies[order])
    ends = np.flatnonzero(np.diff(falling, append=-1.0))  # rows of equal probability stay together
    f1 = 2 * hits[ends] / (ends + 1 + hits[-1])
    best = ends[f1 == f1.max()]
    upper, lower = falling[best], np.append(falling, 0.0)[best + 1]
    middle = (upper + lower) / 2
    candidates = np.where(middle > lower, middle, upper)  # neighbouring floats have no middle
    candidates = np.where((lower < NEUTRAL) & (upper >= NEUTRAL), NEUTRAL, candidates)
    distance = np.abs(candidates - NEUTRAL)
    return float(candidates[distance == distance.min()].max())


def decide(logits: NDArray[np.float32], thresholds: Thresholds) -> NDArray[np.bool_]:
    """Which labels apply: (rows, labels)."""
    decided: NDArray[np.bool_] = sigmoid(logits) >= np.array(thresholds.values)
    return decided
