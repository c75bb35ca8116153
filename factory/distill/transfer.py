"""The transfer set: the texts a student learns on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.models.encoding import EncodedRows, encode_inputs
from factory.recipe.training import DistillSettings

Inputs = Sequence[str] | Sequence[tuple[str, str]]
NO_SOURCE = -1


@dataclass(frozen=True, slots=True)
class AugmentedRows:
    """Variants of labelled rows.

    Shapes:
        source_rows: (rows,) position of each one's labelled row
    """

    inputs: Inputs
    source_rows: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class TransferSet:
    """Labelled rows first, then variants of them, then the others; the teacher speaks for all.

    Shapes:
        source_rows: (rows,) the labelled row that each one is or was made from, else `NO_SOURCE`
    """

    inputs: list[Any]
    rows: EncodedRows
    source_rows: NDArray[np.int64]


def transfer_set(
    labelled: Inputs,
    augmented: AugmentedRows | None,
    unlabelled: Inputs | None,
    tokenizer: Any,
    max_length: int,
) -> TransferSet:
    """Tokenize what the student learns on."""
    made = augmented.inputs if augmented is not None else ()
    inputs = [*labelled, *made, *(unlabelled or ())]
    sources = np.full(len(inputs), NO_SOURCE, dtype=np.int64)
    sources[: len(labelled)] = np.arange(len(labelled))
    if augmented is not None:
        sources[len(labelled) : len(labelled) + len(made)] = augmented.source_rows
    rows = encode_inputs(tokenizer, inputs, max_length)
    return TransferSet(inputs, rows, sources)


def intermediate_rows(
    transfer: TransferSet, learned: NDArray[np.int64], settings: DistillSettings
) -> NDArray[np.int64]:
    """Those of the learned rows that the intermediate phase sees (`unlabelled_phases`)."""
    if settings.unlabelled_phases == "both":
        return learned
    labelled: NDArray[np.bool_] = transfer.source_rows[learned] != NO_SOURCE
    return learned[labelled]


def phase_rows(
    settings: DistillSettings, labelled: int, augmented: int, unlabelled: int
) -> tuple[int, int]:
    """Rows of the intermediate and of the prediction phase when none is held out."""
    both = settings.unlabelled_phases == "both"
    return labelled + augmented + (unlabelled if both else 0), labelled + augmented + unlabelled
