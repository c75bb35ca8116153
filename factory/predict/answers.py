"""The columns that are added to a file: what a bundle's logits mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.bundle import Manifest
from serving.predictor import sigmoid, softmax


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """How answers are named: a prefix for every column, and whether each label has its own."""

    manifest: Manifest
    prefix: str = ""
    all_scores: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The added columns, in order."""
        own = {
            "classification": ("label", "score"),
            "multilabel": ("labels",),
            "regression": ("value",),
        }[self.manifest.task]
        return tuple(self.prefix + name for name in (*own, *self._per_label()))

    def _per_label(self) -> tuple[str, ...]:
        wanted = self.all_scores and self.manifest.task != "regression"
        return tuple(f"score_{label}" for label in self.manifest.labels) if wanted else ()

    def values(self, logits: NDArray[np.float32]) -> list[dict[str, Any]]:
        """The values of the added columns, row by row.

        Args:
            logits: (rows, labels).
        """
        labels = self.manifest.labels
        rows: list[list[Any]]
        scores = logits.astype(np.float64)
        if self.manifest.task == "regression":
            rows = [[value] for value in scores[:, 0].tolist()]
        elif self.manifest.task == "classification":
            scores = softmax(logits)
            best = scores.argmax(axis=1).tolist()
            rows = [
                [labels[place], row[place]]
                for place, row in zip(best, scores.tolist(), strict=True)
            ]
        else:
            scores = sigmoid(logits)
            rows = [[self._labels(row)] for row in scores]
        if self._per_label():
            rows = [old + new for old, new in zip(rows, scores.tolist(), strict=True)]
        return [dict(zip(self.names, row, strict=True)) for row in rows]

    def _labels(self, scores: NDArray[np.float64]) -> list[str]:
        """The labels that apply, from high to low score, as the server lists them."""
        order = np.argsort(-scores, kind="stable").tolist()
        applies = scores >= np.array(self.manifest.thresholds)
        return [self.manifest.labels[place] for place in order if applies[place]]
