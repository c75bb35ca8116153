"""Which variants the teacher still takes for what their row is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory.augment.rendering import Variant
from factory.data.dataset import Split, is_multilabel

if TYPE_CHECKING:
    from factory.models.classifier import TorchClassifier


class TeacherFilter:
    """Drops variants whose label flips or whose confidence collapses.

    What the teacher says of a variant is compared with what it says of the variant's row:
    - classes: dropped when the likeliest class is another, or its probability falls by more than
      `most_drop`;
    - label sets: dropped when any label crosses a probability of 0.5, or that of a label which
      applies falls by more than `most_drop`;
    - numbers: dropped when the number moves, either way, by more than `most_drop` standard
      deviations of the training targets.
    """

    def __init__(self, teacher: TorchClassifier, train: Split, most_drop: float) -> None:
        """Take the teacher of the rows of `train`."""
        self._teacher = teacher
        self._train = train
        self._most_drop = most_drop
        self._multilabel = is_multilabel(train)
        self._spread: float | None = None
        if isinstance(train.targets[0], float):
            self._spread = float(np.std(np.array(train.targets, dtype=np.float64)))

    def kept(self, rows: range, variants: Sequence[Variant]) -> list[Variant]:
        """The variants that stay; their rows are all among `rows`."""
        if not variants:
            return []
        before = self._teacher.logits(_rows_of(self._train, rows))
        after = self._teacher.logits(_inputs(variants))
        own = before[[variant.source_row - rows.start for variant in variants]]
        stays = self._same(own.astype(np.float64), after.astype(np.float64))
        return [variant for variant, stay in zip(variants, stays, strict=True) if stay]

    def _same(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.bool_]:
        """For each variant whether it may stay, from logits (variants, labels)."""
        if self._spread is not None:
            moves = np.abs(after - before)[:, 0]
            stays: NDArray[np.bool_] = moves <= self._most_drop * self._spread
            return stays
        if self._multilabel:
            old, new = _sigmoid(before), _sigmoid(after)
            applies = old > 0.5
            falls = np.where(applies, old - new, 0.0).max(axis=1)
            same: NDArray[np.bool_] = (applies == (new > 0.5)).all(axis=1)
        else:
            old, new = _softmax(before), _softmax(after)
            label, every = old.argmax(axis=1), np.arange(len(old))
            falls = old[every, label] - new[every, label]
            same = label == new.argmax(axis=1)
        unshaken: NDArray[np.bool_] = same & (falls <= self._most_drop)
        return unshaken


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    # without the overflow of exp
    result: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return result


def _inputs(variants: Sequence[Variant]) -> Any:
    """Texts, or pairs of them, as a classifier takes them."""
    if len(variants[0].texts) == 1:
        return [variant.texts[0] for variant in variants]
    return [variant.texts for variant in variants]


def _rows_of(train: Split, rows: range) -> Any:
    part = slice(rows.start, rows.stop)
    if train.text_pairs is None:
        return train.texts[part]
    return list(zip(train.texts[part], train.text_pairs[part], strict=True))
