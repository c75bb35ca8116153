"""Whether probabilities mean what they say: reliability bins and expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The answers whose probability lies in one interval, above `lower` and up to `upper`.

    Args:
        confidence: mean probability of these answers; None where there are none.
        correct: share of them that were right.
    """

    lower: float
    upper: float
    rows: int
    confidence: float | None
    correct: float | None


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of equal width from 0 to 1, and the expected calibration error over them."""

    bins: list[ReliabilityBin]
    error: float
    mean_confidence: float
    share_correct: float


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities of logits: (rows, labels)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def reliability(
    confidences: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = BINS
) -> Reliability:
    """Expected calibration error over bins of equal width (Guo et al. 2017, equation 3).

    A bin holds the probabilities above its lower and up to its upper edge; 0 is in the first.

    Shapes:
        confidences, correct: (answers,)
    """
    places = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    result = []
    error = 0.0
    for place in range(bins):
        inside = places == place
        rows = int(inside.sum())
        lower, upper = place / bins, (place + 1) / bins
        if rows == 0:
            result.append(ReliabilityBin(lower, upper, 0, None, None))
            continue
        mean, right = float(confidences[inside].mean()), float(correct[inside].mean())
        error += rows / len(confidences) * abs(right - mean)
        result.append(ReliabilityBin(lower, upper, rows, mean, right))
    return Reliability(result, error, float(confidences.mean()), float(correct.mean()))


def class_reliability(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> Reliability:
    """Of the predicted class's probability.

    Shapes:
        logits: (rows, labels); targets: (rows,) class numbers
    """
    probabilities = softmax(logits)
    predicted = logits.argmax(axis=1)
    return reliability(probabilities.max(axis=1), predicted == targets)


def label_set_reliability(
    probabilities: NDArray[np.float64], applies: NDArray[np.bool_]
) -> Reliability:
    """Of every label's probability on every row, against whether the label applies.

    Shapes:
        probabilities, applies: (rows, labels)
    """
    return reliability(probabilities.reshape(-1), applies.reshape(-1))
