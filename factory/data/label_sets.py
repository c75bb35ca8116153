"""The label sets of a multilabel split as an array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Split, labels_of_rows


def multi_hot(split: Split, labels: int) -> NDArray[np.bool_]:
    """Which labels apply to which row: (rows, labels)."""
    applies = np.zeros((len(split), labels), dtype=np.bool_)
    for row, indices in enumerate(labels_of_rows(split)):
        applies[row, list(indices)] = True
    return applies
