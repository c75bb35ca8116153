"""Which products of an integer form hurt: its logits with each of them alone in float."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from factory.export.quantize.calibration import ActivationRanges
from factory.export.quantize.form import IntegerForm, find_items
from factory.export.quantize.write import write_integer
from factory.export.session import open_session, session_logits
from factory.models.encoding import EncodedRows


@dataclass(frozen=True, slots=True)
class Closeness:
    """How close the logits of a form are to those of fp32.

    Args:
        agreement: share of rows with the same label (one output: the same sign).
        divergence: mean Kullback-Leibler divergence of the softmax (one output: mean squared
            difference).
        mean_difference, largest_difference: of the logits, absolute.
    """

    agreement: float
    divergence: float
    mean_difference: float
    largest_difference: float


@dataclass(frozen=True, slots=True)
class Hurt:
    """A product or table, and how close the form comes when it alone stays in float."""

    name: str
    without: Closeness


def compare_logits(found: NDArray[np.float32], expected: NDArray[np.float32]) -> Closeness:
    """How close logits are to the expected ones, both (rows, labels)."""
    difference = np.abs(found - expected)
    if expected.shape[1] == 1:
        same = (found > 0) == (expected > 0)
        divergence = float(np.square(found - expected).mean())
    else:
        same = found.argmax(axis=1) == expected.argmax(axis=1)
        reference, other = _log_softmax(expected), _log_softmax(found)
        divergence = float((np.exp(reference) * (reference - other)).sum(axis=1).mean())
    return Closeness(
        float(same.mean()), divergence, float(difference.mean()), float(difference.max())
    )


def leave_one_out(
    source: Path,
    form: IntegerForm,
    rows: EncodedRows,
    ranges: ActivationRanges | None = None,
    names: Sequence[str] | None = None,
    batch_size: int = 1,
) -> list[Hurt]:
    """Write the form once per product and table with that one in float, and order them.

    Args:
        rows: of the train split.
        names: the products and tables to try; None: all that the form quantizes.
        batch_size: more than one is right only for forms independent of neighbours.

    Returns:
        Those that hurt most first: the smallest divergence from fp32 when left out.
    """
    import onnx

    expected = session_logits(open_session(source, threads=1), rows, batch_size)
    graph = onnx.load(source).graph
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "form.onnx"
        facts = write_integer(source, file, form, ranges)
        every = [item.name for item in find_items(graph)]
        quantized = [name for name in every if name not in facts["left_in_float"]]
        for name in quantized if names is None else names:
            write_integer(source, file, replace(form, keep_float=(*form.keep_float, name)), ranges)
            logits = session_logits(open_session(file, threads=1), rows, batch_size)
            found.append(Hurt(name, compare_logits(logits, expected)))
    return sorted(found, key=lambda hurt: hurt.without.divergence)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
