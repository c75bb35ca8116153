"""How far the logits of a form are from those of fp32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LogitError:
    """Logits compared with the expected ones.

    Args:
        agreement: share of rows with the same label (one output: the same sign).
        divergence: mean Kullback-Leibler divergence of the softmax (one output: mean squared
            difference).
        mean_difference, largest_difference: of the logits, absolute.
    """

    agreement: float
    divergence: float
    mean_difference: float
    largest_difference: float


def compare_logits(found: NDArray[np.float32], expected: NDArray[np.float32]) -> LogitError:
    """Compare logits with the expected ones, both (rows, labels)."""
    difference = np.abs(found - expected)
    if expected.shape[1] == 1:
        same = (found > 0) == (expected > 0)
        divergence = float(np.square(found - expected).mean())
    else:
        same = found.argmax(axis=1) == expected.argmax(axis=1)
        reference, other = _log_softmax(expected), _log_softmax(found)
        divergence = float((np.exp(reference) * (reference - other)).sum(axis=1).mean())
    return LogitError(
        float(same.mean()), divergence, float(difference.mean()), float(difference.max())
    )


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
