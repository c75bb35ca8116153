"""Which answers changed between two models, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Flips:
    """The rows of one class by who answers right.

    Args:
        rows: of the class; for multilabel all rows, as each is right or wrong about the label.
        lost: right in the old model, wrong in the new one.
        gained: the reverse.
    """

    label: str
    rows: int
    both_right: int
    lost: int
    gained: int
    both_wrong: int

    def facts(self) -> dict[str, Any]:
        """The counts as JSON data."""
        return asdict(self)


def flips(
    targets: NDArray[Any], old: NDArray[Any], new: NDArray[Any], labels: Sequence[str]
) -> list[Flips]:
    """The flips of each class that has rows, those that lost most first; none for numbers.

    Shapes:
        targets, old, new: (rows,) class numbers, or (rows, labels) booleans
    """
    if targets.dtype.kind == "f":
        return []
    found = []
    for index, label in enumerate(labels):
        if targets.ndim == 2:
            right = [answers[:, index] == targets[:, index] for answers in (old, new)]
        else:
            own = targets == index
            right = [answers[own] == index for answers in (old, new)]
        if len(right[0]):
            found.append(_count(label, *right))
    return sorted(found, key=lambda one: (one.gained - one.lost, -one.lost, one.label))


def _count(label: str, old: NDArray[np.bool_], new: NDArray[np.bool_]) -> Flips:
    return Flips(
        label,
        len(old),
        both_right=int((old & new).sum()),
        lost=int((old & ~new).sum()),
        gained=int((~old & new).sum()),
        both_wrong=int((~old & ~new).sum()),
    )
