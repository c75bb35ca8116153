"""A bundle's answers to labelled rows, in a numbering of labels that two bundles share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Split, Task, is_multilabel, multi_hot
from factory.evaluation.thresholds import Thresholds, decide
from factory.models.classifier import logits_with_bar
from serving.predictor import Predictor


def shared_labels(labels: Sequence[str], *others: Sequence[str]) -> tuple[str, ...]:
    """The labels in their order, then those that only others have."""
    return tuple(dict.fromkeys([*labels, *(label for more in others for label in more)]))


def target_rows(split: Split, task: Task, labels: Sequence[str]) -> NDArray[Any]:
    """The split's targets: (rows,) numbers, or (rows, labels) booleans for multilabel."""
    if is_multilabel(split):
        return multi_hot(split, len(labels))
    return np.array(split.targets, dtype=np.float64 if task == "regression" else np.int64)


def answer_rows(
    predictor: Predictor, split: Split, labels: Sequence[str], name: str
) -> NDArray[Any]:
    """What the bundle answers, through the server's code, shaped as `target_rows`.

    Args:
        labels: at least the bundle's own.
        name: for the progress bar.

    Raises:
        InputError: the bundle takes pairs and the split has single texts, or the reverse.
    """
    logits = logits_with_bar(predictor, split.inputs(), f"{name} on {split.name}")
    if predictor.task == "regression":
        return logits[:, 0].astype(np.float64)
    numbers = np.array([labels.index(label) for label in predictor.labels])
    if predictor.thresholds is None:
        own: NDArray[np.int64] = numbers[logits.argmax(axis=1)]
        return own
    applies = np.zeros((len(split), len(labels)), dtype=np.bool_)
    applies[:, numbers] = decide(logits, Thresholds(predictor.thresholds, "the bundle's own"))
    return applies
