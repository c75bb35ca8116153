"""The whole graph from strings to labels: tokenizer, rows, network and outputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from factory.errors import TextModelError
from factory.export.onnx import INPUT_NAMES, OUTPUT_NAME
from factory.export.text.graph import add_pieces
from factory.export.text.nodes import (
    BOOL,
    DOUBLE,
    FLOAT,
    INT64,
    MACHINE_LEARNING,
    MICROSOFT,
    STRING,
    Nodes,
)
from factory.export.text.tokenizer import RowFormat, TextTables
from factory.recipe.task import TASK_TRAITS
from serving.bundle import Task

PREFIX = "model/"
OLDEST_OPSET = 14
IR_VERSION = 8

Output = tuple[str, int, list[str]]  # name, element type, axes
ROW_FACTS: list[Output] = [("token_count", INT64, ["batch"]), ("truncated", BOOL, ["batch"])]


@dataclass(frozen=True, slots=True)
class TextForm:
    """Task, labels and inputs of a text model; a bundle's manifest has these fields.

    Args:
        max_length: pieces per row, special ones included.
        thresholds: of a multilabel model, one per label.
    """

    task: Task
    labels: Sequence[str]
    text_pair: bool
    max_length: int
    thresholds: Sequence[float] | None = None


def build_text_model(model: Any, tables: TextTables, rows: RowFormat, form: TextForm) -> Any:
    """An onnx.ModelProto that takes strings, from one that takes token ids.

    Args:
        model: has some of the inputs `input_ids`, `attention_mask`, `token_type_ids` and the
            output `logits`; it is not changed.

    Raises:
        TextModelError: an opset before 14, other inputs or outputs, a wrong number of thresholds.
    """
    from onnx import compose, helper

    opset = _check_model(model)
    wanted = len(form.labels) if TASK_TRAITS[form.task].has_label_sets else 0
    if len(form.thresholds or ()) != wanted:
        raise TextModelError(
            f"{form.task} with {len(form.labels)} labels and {len(form.thresholds or ())} "
            f"thresholds; {wanted} are required"
        )
    inner = compose.add_prefix(model, PREFIX).graph
    nodes, answers = Nodes("text/"), Nodes("answer/")
    _add_tokenizer(nodes, tables, rows, PREFIX)
    outputs = _add_answers(answers, form)
    result = _model(
        [*nodes.nodes, *inner.node, *answers.nodes],
        [*nodes.constants.values(), *inner.initializer, *answers.constants.values()],
        rows.text_pair,
        [*outputs, *ROW_FACTS],
        {entry.domain: entry.version for entry in model.opset_import} | {"": opset},
    )
    result.functions.extend(model.functions)
    # with known shapes, onnxruntime applies the same fusions as in the network alone, so that the
    # order of additions, and with it the rounding in an int8 file, is the same
    result.graph.value_info.extend([*inner.input, *inner.value_info])
    described = {
        "task": form.task,
        "labels": json.dumps(list(form.labels), ensure_ascii=False),
        "max_length": str(form.max_length),
    }
    if form.thresholds:
        described["thresholds"] = json.dumps(list(form.thresholds))
    kept = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(result, kept | described)
    return result


def build_row_model(tables: TextTables, rows: RowFormat, opset: int = 17) -> Any:
    """The tokenizer alone: its outputs are the inputs of the network."""
    nodes = Nodes("text/")
    _add_tokenizer(nodes, tables, rows, "")
    outputs: list[Output] = [(name, INT64, ["batch", "sequence"]) for name in INPUT_NAMES]
    constants = list(nodes.constants.values())
    return _model(nodes.nodes, constants, rows.text_pair, [*outputs, *ROW_FACTS], {"": opset})


def _add_tokenizer(nodes: Nodes, tables: TextTables, form: RowFormat, prefix: str) -> None:
    """Nodes that truncate each text as the server does, add the special pieces and pad.

    Outputs are `input_ids`, `attention_mask` and `token_type_ids`, int64 (batch, longest row),
    their names after `prefix`; `token_count`, int64 (batch,) with special pieces; `truncated`,
    bool (batch,).
    """
    texts = ["text"]
    if form.text_pair:
        # fails where the two inputs have different numbers of texts
        texts.append(nodes.add("Reshape", "text_pair", nodes.add("Shape", "text")))
    piece_ids, offsets = add_pieces(nodes, texts, tables)
    begins = nodes.slice(offsets, 0, -1)
    counts = nodes.add("Sub", nodes.slice(offsets, 1, None), begins)
    room = form.max_length - form.specials
    if form.text_pair:  # pieces are of all first and then all second texts
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
    ids = nodes.add("Gather", nodes.add("Concat", special, piece_ids, axis=0), index)
    mask = nodes.add("Less", columns, _column(nodes, length))
    nodes.cast(ids, INT64, name=f"{prefix}input_ids")
    nodes.cast(mask, INT64, name=f"{prefix}attention_mask")
    nodes.cast(nodes.add("And", mask, types), INT64, name=f"{prefix}token_type_ids")
    nodes.cast(length, INT64, name="token_count")
    nodes.add("Less", both, total, name="truncated")


def _sides(nodes: Nodes, value: str) -> list[str]:
    """A value of all first and then all second texts, split in two."""
    parted = nodes.add("Reshape", value, nodes.int64([2, -1]))
    return [nodes.add("Gather", parted, nodes.int32(side), axis=0) for side in (0, 1)]


def _longest_first(nodes: Nodes, first: str, second: str, room: int) -> list[str]:
    """Pieces kept of both texts: the longer one is cut first; if both are long, each gets half.

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
    """Indices of the cells' ids behind those of CLS, SEP and PAD, and the second text's cells.

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
        started = nodes.add("GreaterOrEqual", within, nodes.int32(0))
        of_text = nodes.add("And", nodes.add("Less", within, size), started)
        place = nodes.add("Add", within, _column(nodes, nodes.add("Add", begin, nodes.int32(3))))
        index = nodes.add("Where", of_text, place, index)
        ends = nodes.add("Equal", within, size)
        index = nodes.add("Where", ends, nodes.int32(1), index)
        within = nodes.add("Sub", within, nodes.add("Add", size, nodes.int32(1)))
        second = second or nodes.add("GreaterOrEqual", within, nodes.int32(0))
    return index, second


def _column(nodes: Nodes, value: str) -> str:
    return nodes.add("Unsqueeze", value, nodes.int64([1]))


def _add_answers(nodes: Nodes, form: TextForm) -> list[Output]:
    """Nodes from logits to `label` and `scores`; returns name, element type and axes of each.

    classification: the best label of each text, and probabilities that add up to 1.
    multilabel: every label's name where it applies and "" where not, and its own probability.
    regression: no labels, and the value as score.
    """
    logits = f"{PREFIX}{OUTPUT_NAME}"
    scores: Output = ("scores", FLOAT, ["batch", "labels"])
    if form.task == "regression":
        nodes.add("Identity", logits, name="scores")
        return [scores]
    names = nodes.strings(list(form.labels))
    if form.task == "classification":
        nodes.add("Softmax", logits, axis=-1, name="scores")
        best = nodes.add("ArgMax", logits, axis=-1, keepdims=0)
        nodes.add("Gather", names, best, name="label")
        return [("label", STRING, ["batch"]), scores]
    # in double precision, as the server decides
    probabilities = nodes.add("Sigmoid", nodes.cast(logits, DOUBLE))
    applies = nodes.add("GreaterOrEqual", probabilities, nodes.double(list(form.thresholds or ())))
    nodes.add("Where", applies, names, nodes.strings([""]), name="label")
    nodes.cast(probabilities, FLOAT, name="scores")
    return [("label", STRING, ["batch", "labels"]), scores]


def _check_model(model: Any) -> int:
    """The opset of a model that can be put behind the tokenizer."""
    opset = next((entry.version for entry in model.opset_import if entry.domain == ""), 0)
    if opset < OLDEST_OPSET:
        raise TextModelError(
            f"the model has opset {opset}; export it with export.opset = {OLDEST_OPSET} or more"
        )
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    if not set(inputs) <= set(INPUT_NAMES) or outputs != [OUTPUT_NAME]:
        raise TextModelError(
            f"the model has inputs {inputs} and outputs {outputs}; a text model is made from an "
            f"exported student with {', '.join(INPUT_NAMES)} and {OUTPUT_NAME}"
        )
    return int(opset)


def _model(
    nodes: list[Any],
    constants: list[Any],
    text_pair: bool,
    outputs: list[Output],
    opsets: dict[str, int],
) -> Any:
    from onnx import helper

    texts = ["text", "text_pair"] if text_pair else ["text"]
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info(name, STRING, ["batch"]) for name in texts],
        [helper.make_tensor_value_info(*output) for output in outputs],
        constants,
    )
    domains = {MICROSOFT: 1, MACHINE_LEARNING: 2} | opsets
    imports = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="tinybert-factory"
    )
