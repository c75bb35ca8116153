"""Pieces to the rows a BERT reads, and its logits to labels and scores, as ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from factory.export.text.graph import Pieces
from factory.export.text.nodes import DOUBLE, FLOAT, INT64, STRING, Nodes

Task = Literal["classification", "regression", "multilabel"]


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How pieces become rows: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

    Args:
        max_length: pieces of a row, special ones included.
    """

    cls_id: int
    sep_id: int
    pad_id: int
    max_length: int
    text_pair: bool

    @property
    def specials(self) -> int:
        """How many special pieces a row has."""
        return 3 if self.text_pair else 2


def add_rows(nodes: Nodes, pieces: Pieces, form: RowFormat, prefix: str) -> None:
    """Nodes that cut each text as the server does, set the special pieces and pad.

    Outputs are `input_ids`, `attention_mask` and `token_type_ids`, int64 (batch, longest row),
    their names behind `prefix`; `token_count`, int64 (batch,) with special pieces; `truncated`,
    bool (batch,).

    Args:
        pieces: of the texts, or of all first and then all second texts.
    """
    begins = nodes.slice(pieces.offsets, 0, -1)
    counts = nodes.add("Sub", nodes.slice(pieces.offsets, 1, None), begins)
    room = form.max_length - form.specials
    if form.text_pair:
        begin_of, (first, second) = _sides(nodes, begins), _sides(nodes, counts)
        kept = _longest_first(nodes, first, second, room)
        total, both = nodes.add("Add", first, second), nodes.add("Add", *kept)
    else:
        begin_of, kept = [begins], [nodes.add("Min", counts, nodes.int32(room))]
        total, both = counts, kept[0]
    length = nodes.add("Add", both, nodes.int32(form.specials))
    lengths = nodes.add("Concat", length, nodes.int32([1]), axis=0)  # a batch may have no rows
    widest = nodes.add("ReduceMax", lengths, keepdims=0)
    columns = nodes.add("Range", nodes.int32(0), widest, nodes.int32(1))
    index, types = _place(nodes, columns, begin_of, kept)
    special = nodes.int32([form.cls_id, form.sep_id, form.pad_id])
    ids = nodes.add("Gather", nodes.add("Concat", special, pieces.ids, axis=0), index)
    mask = nodes.add("Less", columns, _column(nodes, length))
    nodes.cast(ids, INT64, name=f"{prefix}input_ids")
    nodes.cast(mask, INT64, name=f"{prefix}attention_mask")
    nodes.cast(nodes.add("And", mask, types), INT64, name=f"{prefix}token_type_ids")
    nodes.cast(length, INT64, name="token_count")
    nodes.add("Less", both, total, name="truncated")


def _sides(nodes: Nodes, value: str) -> list[str]:
    """A value of all first and then all second texts, parted."""
    parted = nodes.add("Reshape", value, nodes.int64([2, -1]))
    return [nodes.add("Gather", parted, nodes.int32(side), axis=0) for side in (0, 1)]


def _longest_first(nodes: Nodes, first: str, second: str, room: int) -> list[str]:
    """Pieces kept of both texts: the longer one gives, and when both are long each gets half.

    The order of the tests is that of the `tokenizers` library, whose odd piece goes to the second
    text if that is the longer one or as long, else to the first.
    """
    swapped = nodes.add("Greater", first, second)
    short, long = nodes.add("Min", first, second), nodes.add("Max", first, second)
    beside = nodes.add("Max", short, nodes.add("Sub", nodes.int32(room), short))
    halved = nodes.add("Greater", nodes.add("Add", short, beside), nodes.int32(room))
    new_short = nodes.add("Where", halved, nodes.int32(room // 2), short)
    new_long = nodes.add("Where", halved, nodes.int32(room - room // 2), beside)
    fits = nodes.add("LessOrEqual", nodes.add("Add", short, long), nodes.int32(room))
    short = nodes.add("Where", fits, short, new_short)
    long = nodes.add("Where", fits, long, new_long)
    return [
        nodes.add("Where", swapped, long, short),
        nodes.add("Where", swapped, short, long),
    ]


def _place(
    nodes: Nodes, columns: str, begin_of: Sequence[str], kept: Sequence[str]
) -> tuple[str, str]:
    """Where cells find their ids behind those of CLS, SEP and PAD, and which are the second text's.

    Shapes:
        columns: (longest row,)
        begin_of, kept: (batch,) per side
        returns: (batch, longest row)
    """
    index = nodes.add(
        "Where", nodes.add("Equal", columns, nodes.int32(0)), nodes.int32(0), nodes.int32(2)
    )
    within, second = nodes.add("Sub", columns, nodes.int32(1)), ""
    for begin, count in zip(begin_of, kept, strict=True):
        size = _column(nodes, count)
        of_text = nodes.add("And", nodes.add("Less", within, size), _not_negative(nodes, within))
        place = nodes.add("Add", within, _column(nodes, nodes.add("Add", begin, nodes.int32(3))))
        index = nodes.add("Where", of_text, place, index)
        ends = nodes.add("Equal", within, size)
        index = nodes.add("Where", ends, nodes.int32(1), index)
        within = nodes.add("Sub", within, nodes.add("Add", size, nodes.int32(1)))
        second = second or _not_negative(nodes, within)
    return index, second


def _not_negative(nodes: Nodes, value: str) -> str:
    return str(nodes.add("GreaterOrEqual", value, nodes.int32(0)))


def _column(nodes: Nodes, value: str) -> str:
    return str(nodes.add("Unsqueeze", value, nodes.int64([1])))


def add_answers(
    nodes: Nodes, logits: str, task: Task, labels: Sequence[str], thresholds: Sequence[float] | None
) -> list[tuple[str, int, list[str]]]:
    """Nodes from logits to `label` and `scores`; returns name, element type and axes of each.

    classification: the best label of each text, and probabilities that add up to 1.
    multilabel: every label's name where it applies and "" where not, and its own probability.
    regression: no labels, and the value as score.
    """
    rows = ["batch", "labels"]
    if task == "regression":
        nodes.add("Identity", logits, name="scores")
        return [("scores", FLOAT, rows)]
    names = nodes.strings(list(labels))
    if task == "classification":
        nodes.add("Softmax", logits, axis=-1, name="scores")
        best = nodes.add("ArgMax", logits, axis=-1, keepdims=0)
        nodes.add("Gather", names, best, name="label")
        return [("label", STRING, rows[:1]), ("scores", FLOAT, rows)]
    # in double precision, as the server decides
    probabilities = nodes.add("Sigmoid", nodes.cast(logits, DOUBLE))
    limits = nodes.double(list(thresholds or ()))
    applies = nodes.add("GreaterOrEqual", probabilities, limits)
    nodes.add("Where", applies, names, nodes.strings([""]), name="label")
    nodes.cast(probabilities, FLOAT, name="scores")
    return [("label", STRING, rows), ("scores", FLOAT, rows)]
