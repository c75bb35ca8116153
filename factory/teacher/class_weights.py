"""Weights that let every class of a skewed training set count alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def class_weights(targets: Sequence[Any], classes: int) -> NDArray[np.float32]:
    """Rows / (classes * rows of the class), so that the weights of the rows average 1.

    A class without a row gets 0: no row asks for its weight. The weighted loss of a batch is the
    mean over its rows of weight times loss, not divided by the weights' sum: a batch without the
    rare class must not weigh more for it.

    Shapes:
        result: (classes,)
    """
    counts = np.bincount(np.asarray(targets, dtype=np.int64), minlength=classes)
    occurs = counts > 0
    # classes that occur share the rows, also where the data declares some that do not
    share = len(targets) / (occurs.sum() * np.maximum(counts, 1))
    return np.where(occurs, share, 0.0).astype(np.float32)
