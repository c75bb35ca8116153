"""Compare a text model with the tokenizer and the network it was written from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.errors import ParityError, first_line
from factory.export.onnx import INPUT_NAMES
from factory.export.text.characters import SURROGATES
from factory.export.text.model import TextForm
from factory.models.tasks import TASKS
from factory.recipe.task import TASK_TRAITS
from serving.tokenization import TextTokenizer

CONTEXT_POINTS = 128  # code points in one text, each within a word and alone
BATCH_TEXTS = 32
SCORE_TEXTS = 3  # not 1, to test padding and the order of rows
ATOL = 1e-5

Inputs = list[str] | list[tuple[str, str]]
Arrays = dict[str, NDArray[Any]]


def feed_of(inputs: Inputs) -> Arrays:
    """The inputs of a graph that reads text; none are taken for single texts."""
    pairs = bool(inputs) and not isinstance(inputs[0], str)
    sides = zip(*inputs, strict=True) if pairs else [inputs]
    names = ("text", "text_pair")
    return {name: np.array(side, dtype=object) for name, side in zip(names, sides, strict=False)}


def expected_rows(tokenizer: TextTokenizer, inputs: Inputs) -> Arrays:
    """The network's inputs by the server's tokenizer, padded to the longest row."""
    encoded = tokenizer.encode(inputs)
    shape = (len(encoded), max(map(len, encoded)))
    rows: Arrays = {name: np.zeros(shape, dtype=np.int64) for name in INPUT_NAMES}
    rows["input_ids"][:] = tokenizer.pad_id
    for row, item in enumerate(encoded):
        rows["input_ids"][row, : len(item)] = item.input_ids
        rows["attention_mask"][row, : len(item)] = 1
        rows["token_type_ids"][row, : len(item)] = item.token_type_ids
    rows["token_count"] = np.array([len(item) for item in encoded])
    rows["truncated"] = np.array([item.truncated for item in encoded])
    return rows


def different_rows(session: Any, tokenizer: TextTokenizer, inputs: Inputs) -> list[int]:
    """Positions of the inputs that a graph of `build_row_model` tokenizes differently.

    Raises:
        ParityError: onnxruntime fails on them.
    """
    different: list[int] = []
    order = sorted(range(len(inputs)), key=lambda position: sum(map(len, inputs[position])))
    for first in range(0, len(order), BATCH_TEXTS):
        positions = order[first : first + BATCH_TEXTS]
        if not _tokenizes_alike(session, tokenizer, inputs, positions):
            # rows of a batch share their width: find the row that differs one by one
            found = [p for p in positions if not _tokenizes_alike(session, tokenizer, inputs, [p])]
            different += found or positions
    return sorted(different)


def _tokenizes_alike(
    session: Any, tokenizer: TextTokenizer, inputs: Inputs, positions: Sequence[int]
) -> bool:
    batch: Inputs = [inputs[position] for position in positions]  # type: ignore[assignment]
    expected = expected_rows(tokenizer, batch)
    found = _run(session, list(expected), feed_of(batch))
    return all(map(np.array_equal, found, expected.values()))


def different_points(session: Any, tokenizer: TextTokenizer, points: Sequence[int]) -> list[int]:
    """Code points that a graph for single texts tokenizes differently, alone or within a word."""
    points = [point for point in points if point not in SURROGATES]
    chunks = [points[n : n + CONTEXT_POINTS] for n in range(0, len(points), CONTEXT_POINTS)]
    texts = ["".join(map(_contexts, chunk)) for chunk in chunks]
    suspects = [
        point
        for position in different_rows(session, tokenizer, texts)
        for point in chunks[position]
    ]
    alone = different_rows(session, tokenizer, [_contexts(point) for point in suspects])
    return [suspects[position] for position in alone]


def _contexts(point: int) -> str:
    return f"a{chr(point)}b {chr(point)} "


def largest_score_difference(
    session: Any, network: Any, tokenizer: TextTokenizer, inputs: Inputs, form: TextForm
) -> float:
    """Compare scores and labels of a text model with those of tokenizer and network run separately.

    Both run the same batches, so that padding is the same.

    Raises:
        ParityError: a label does not follow from the scores, or another number of labels.
    """
    worst = 0.0
    wanted = [value.name for value in network.get_inputs()]
    names = [value.name for value in session.get_outputs()]
    for first in range(0, len(inputs), SCORE_TEXTS):
        batch: Inputs = inputs[first : first + SCORE_TEXTS]
        rows = expected_rows(tokenizer, batch)
        (logits,) = _run(network, ["logits"], {name: rows[name] for name in wanted})
        if logits.shape[1] != len(form.labels):
            raise ParityError(
                f"the network has {logits.shape[1]} outputs for {len(form.labels)} labels"
            )
        found = dict(zip(names, _run(session, names, feed_of(batch)), strict=True))
        expected = TASKS[form.task].activation(logits)
        labels = np.array(form.labels, dtype=object)
        right: Any = True
        # within the tolerance of the best score or of a threshold, either label is right
        if form.thresholds is not None:
            limits = np.array(form.thresholds)
            applies = found["label"] == np.where(expected >= limits, labels, "")
            right = applies | (np.abs(expected - limits) <= ATOL)
        elif TASK_TRAITS[form.task].has_labels:
            chosen = found["label"][:, None] == labels
            right = (expected >= expected.max(axis=1, keepdims=True) - ATOL)[chosen]
        if not np.all(right):
            raise ParityError("the labels of the text model do not follow from its scores")
        difference = np.abs(found["scores"] - expected).max()
        worst = float(np.maximum(worst, difference))  # keeps a NaN
    return worst


def _run(session: Any, names: list[str], feed: Arrays) -> list[NDArray[Any]]:
    try:
        return list(session.run(names, feed))
    except Exception as error:  # onnxruntime's own errors share no base class
        raise ParityError(f"onnxruntime fails on a text model: {first_line(error)}") from error
