"""A classifier and a split to an Evaluation: metrics, intervals, confusion, predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.classifier import Classifier, logits_with_bar
from factory.data.dataset import Split
from factory.metrics import Score, confusion, per_class, score_classes, score_numbers


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How one model did on one split.

    Shapes:
        predicted: (rows,) class numbers, or values for regression
    """

    split: str
    rows: int
    scores: Mapping[str, Score]
    predicted: NDArray[Any]
    per_class: Mapping[str, Mapping[str, float]]
    confusion: list[list[int]]

    def facts(self) -> dict[str, Any]:
        """The evaluation as JSON data, without the predictions."""
        return {
            "split": self.split,
            "rows": self.rows,
            "scores": {name: asdict(score) for name, score in self.scores.items()},
            "per_class": {label: dict(values) for label, values in self.per_class.items()},
            "confusion": self.confusion,
        }


def evaluate(
    classifier: Classifier,
    split: Split,
    labels: tuple[str, ...],
    positive_label: str | None = None,
) -> Evaluation:
    """Score a classifier on a split; a split with number targets is scored as regression.

    Args:
        positive_label: of two labels the one whose F1 is meant by f1; None for the last.
    """
    logits = logits_with_bar(classifier, split.inputs(), f"score {split.name}")
    return evaluate_logits(logits, split, labels, positive_label)


def evaluate_logits(
    logits: NDArray[np.float32],
    split: Split,
    labels: tuple[str, ...],
    positive_label: str | None = None,
) -> Evaluation:
    """Score outputs that are already there.

    Shapes:
        logits: (rows, labels), or (rows, 1) for regression
    """
    if isinstance(split.targets[0], float):
        values = logits[:, 0].astype(np.float64)
        scores = score_numbers(np.array(split.targets, dtype=np.float64), values)
        return Evaluation(split.name, len(split), scores, values, {}, [])
    targets = np.array(split.targets, dtype=np.int64)
    predicted = logits.argmax(axis=1).astype(np.int64)
    return Evaluation(
        split.name,
        len(split),
        score_classes(targets, predicted, _positive_class(labels, positive_label)),
        predicted,
        per_class(targets, predicted, labels),
        confusion(targets, predicted, labels),
    )


def _positive_class(labels: tuple[str, ...], positive_label: str | None) -> int | None:
    """The class the metric f1 is about: among more than two labels none stands out."""
    if len(labels) != 2:
        return None
    return labels.index(positive_label) if positive_label in labels else 1
