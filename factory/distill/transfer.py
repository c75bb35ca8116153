"""The transfer set: the texts a student learns on, and how much each counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.encoding import EncodedRows, encode_inputs

Inputs = Sequence[str] | Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class TransferSet:
    """Labelled rows first, then the others; the teacher speaks for all of them.

    Shapes:
        weights: (rows,) weight of each row's loss
    """

    inputs: list[Any]
    rows: EncodedRows
    weights: NDArray[np.float32]


def transfer_set(
    labelled: Inputs,
    unlabelled: Inputs | None,
    unlabelled_weight: float,
    tokenizer: Any,
    max_length: int,
) -> TransferSet:
    """Tokenize what the student learns on; a weight of 0 leaves the unlabelled rows out."""
    extra = list(unlabelled or ()) if unlabelled_weight > 0 else []
    inputs = [*labelled, *extra]
    weights = np.ones(len(inputs), dtype=np.float32)
    weights[len(labelled) :] = unlabelled_weight
    return TransferSet(inputs, encode_inputs(tokenizer, inputs, max_length), weights)
