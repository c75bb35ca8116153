"""A classifier and splits to Evaluations: metrics, intervals, confusion, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Split, is_multilabel, multi_hot
from factory.evaluation.metrics import Score, confusion, per_class, score_classes, score_numbers
from factory.evaluation.multilabel_metrics import score_label_sets
from factory.evaluation.thresholds import (
    NEUTRAL,
    Thresholds,
    decide,
    fixed_thresholds,
    tuned_thresholds,
)
from factory.models.classifier import Classifier, logits_with_bar


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How one model did on one split.

    Args:
        thresholds: what the labels of a multilabel model were decided with.

    Shapes:
        predicted: (rows,) class numbers, or values for regression; (rows, labels) booleans for
            multilabel
        logits: (rows, labels) the raw outputs, or (rows, 1) for regression
    """

    split: str
    rows: int
    scores: Mapping[str, Score]
    predicted: NDArray[Any]
    logits: NDArray[np.float32]
    per_class: Mapping[str, Mapping[str, float]]
    confusion: list[list[int]]
    labels: tuple[str, ...] = ()
    thresholds: Thresholds | None = None

    def facts(self) -> dict[str, Any]:
        """The evaluation as JSON data, without the predictions."""
        facts = {
            "split": self.split,
            "rows": self.rows,
            "scores": {name: asdict(score) for name, score in self.scores.items()},
            "per_class": {label: dict(values) for label, values in self.per_class.items()},
            "confusion": self.confusion,
        }
        return facts if self.thresholds is None else facts | self.thresholds.facts(self.labels)


def evaluate(
    classifier: Classifier,
    split: Split,
    labels: tuple[str, ...],
    thresholds: Thresholds | None = None,
    positive_label: str | None = None,
) -> Evaluation:
    """Score a classifier on a split; a split with number targets is scored as regression.

    Args:
        positive_label: of two labels the one whose F1 is meant by f1; None for the last.
    """
    logits = logits_with_bar(classifier, split.inputs(), f"score {split.name}")
    return evaluate_logits(logits, split, labels, thresholds, positive_label)


def evaluate_splits(
    classifier: Classifier,
    splits: Sequence[Split],
    labels: tuple[str, ...],
    thresholds: float | Literal["tuned"] = "tuned",
    positive_label: str | None = None,
    tuned_for: str = "micro_f1",
) -> dict[str, Evaluation]:
    """Score a classifier on dev and, with what dev decided, on the splits behind it.

    Args:
        splits: dev first; a multilabel classifier's thresholds are tuned on it.
        thresholds: of a multilabel classifier, or "tuned"; the other tasks have none.
        tuned_for: micro_f1 or macro_f1.
    """
    outputs = [
        logits_with_bar(classifier, split.inputs(), f"score {split.name}") for split in splits
    ]
    dev = splits[0]
    deciding: Thresholds | None = None
    if is_multilabel(dev) and thresholds == "tuned":
        applies = multi_hot(dev, len(labels))
        deciding = tuned_thresholds(outputs[0], applies, dev.name, tuned_for)
    elif is_multilabel(dev):
        deciding = fixed_thresholds(float(thresholds), len(labels))
    return {
        split.name: evaluate_logits(logits, split, labels, deciding, positive_label)
        for split, logits in zip(splits, outputs, strict=True)
    }


def evaluate_logits(
    logits: NDArray[np.float32],
    split: Split,
    labels: tuple[str, ...],
    thresholds: Thresholds | None = None,
    positive_label: str | None = None,
) -> Evaluation:
    """Score outputs that are already there.

    Args:
        thresholds: of a multilabel split, 0.5 for every label when None; the others have none.

    Shapes:
        logits: (rows, labels), or (rows, 1) for regression
    """
    if is_multilabel(split):
        deciding = thresholds or fixed_thresholds(NEUTRAL, len(labels))
        return _evaluate_label_sets(logits, split, labels, deciding)
    if isinstance(split.targets[0], float):
        values = logits[:, 0].astype(np.float64)
        scores = score_numbers(np.array(split.targets, dtype=np.float64), values)
        return Evaluation(split.name, len(split), scores, values, logits, {}, [])
    targets = np.array(split.targets, dtype=np.int64)
    predicted = logits.argmax(axis=1).astype(np.int64)
    return Evaluation(
        split.name,
        len(split),
        score_classes(targets, predicted, _positive_class(labels, positive_label)),
        predicted,
        logits,
        per_class(targets, predicted, labels),
        confusion(targets, predicted, labels),
    )


def thresholds_of(
    evaluation: Mapping[str, Any], model: str, labels: tuple[str, ...]
) -> Thresholds | None:
    """A model's thresholds out of the evaluate stage's facts; None where the task has none."""
    facts = evaluation[model]["dev"]
    if "thresholds" not in facts:
        return None
    values = tuple(facts["thresholds"][label] for label in labels)
    return Thresholds(values, facts["thresholds_source"])


def share_alike(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Share of the rows that two models predict alike, in every label where there are several.

    Shapes:
        one, other: `predicted` of two evaluations of the same split
    """
    equal = (one == other).reshape(len(one), -1)
    return float(equal.all(axis=1).mean())


def _evaluate_label_sets(
    logits: NDArray[np.float32], split: Split, labels: tuple[str, ...], thresholds: Thresholds
) -> Evaluation:
    """There is no confusion of sets; `per_class` says what is missed and what is invented."""
    applies = multi_hot(split, len(labels))
    predicted = decide(logits, thresholds)
    return Evaluation(
        split.name,
        len(split),
        score_label_sets(applies, predicted),
        predicted,
        logits,
        per_class(applies.astype(np.int64), predicted.astype(np.int64), labels),
        [],
        labels,
        thresholds,
    )


def _positive_class(labels: tuple[str, ...], positive_label: str | None) -> int | None:
    """The class the metric f1 is about: among more than two labels none stands out."""
    if len(labels) != 2:
        return None
    return labels.index(positive_label) if positive_label in labels else 1
