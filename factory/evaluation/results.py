"""The results of an evaluation: typed in code, JSON facts in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.evaluation.metrics import LabelScore, Score
from factory.evaluation.thresholds import Thresholds


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of one model on one split.

    Args:
        scores: by metric.
        per_class: by label, in the order of the labels; empty for regression.
        confusion: rows by true label and predicted label; empty unless labels exclude each other.
        thresholds: of a multilabel model's labels.
    """

    split: str
    rows: int
    scores: Mapping[str, Score]
    per_class: Mapping[str, LabelScore]
    confusion: list[list[int]]
    thresholds: Thresholds | None = None

    def to_facts(self) -> dict[str, Any]:
        """The evaluation as JSON data."""
        facts = {
            "split": self.split,
            "rows": self.rows,
            "scores": {name: asdict(score) for name, score in self.scores.items()},
            "per_class": {label: asdict(score) for label, score in self.per_class.items()},
            "confusion": self.confusion,
        }
        if self.thresholds is not None:
            facts |= self.thresholds.to_facts(tuple(self.per_class))
        return facts

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `to_facts` described."""
        thresholds = None
        if "thresholds" in facts:
            values = tuple(facts["thresholds"].values())
            thresholds = Thresholds(values, facts["thresholds_source"])
        return cls(
            facts["split"],
            facts["rows"],
            {name: Score(**score) for name, score in facts["scores"].items()},
            {label: LabelScore(**score) for label, score in facts["per_class"].items()},
            facts["confusion"],
            thresholds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedSplit(Evaluation):
    """An evaluation with the model's outputs.

    Shapes:
        predicted: (rows,) class numbers, or values for regression; (rows, labels) booleans for
            multilabel
        logits: (rows, labels) the raw outputs, or (rows, 1) for regression
    """

    predicted: NDArray[Any]
    logits: NDArray[np.float32]


Evaluations = Mapping[str, Mapping[str, Evaluation]]  # by model and split


def evaluations_from_facts(facts: Mapping[str, Any]) -> Evaluations:
    """Read the results of the evaluate stage."""
    return {
        model: {split: Evaluation.from_facts(one) for split, one in splits.items()}
        for model, splits in facts.items()
    }
