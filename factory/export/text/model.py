"""The whole graph from strings to labels: tokenizer, network and answer put together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from factory.errors import TextModelError
from factory.export.text.graph import TextTables, add_pieces
from factory.export.text.nodes import BOOL, INT64, MACHINE_LEARNING, MICROSOFT, STRING, Nodes
from factory.export.text.rows import RowFormat, Task, add_answers, add_rows

PREFIX = "model/"
OLDEST_OPSET = 14
IR_VERSION = 8
ROW_NAMES = ("input_ids", "attention_mask", "token_type_ids")

Output = tuple[str, int, list[str]]  # name, element type, axes


@dataclass(frozen=True, slots=True)
class TextForm:
    """What the file reads and answers; a bundle's manifest has these fields.

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
    """An onnx.ModelProto that reads strings, from one that reads token ids.

    Args:
        model: has some of the inputs `input_ids`, `attention_mask`, `token_type_ids` and the
            output `logits`; it is not changed.

    Raises:
        TextModelError: an opset before 14, other inputs or outputs, a wrong number of thresholds.
    """
    from onnx import compose

    opset = _check_model(model)
    if len(form.thresholds or ()) != (len(form.labels) if form.task == "multilabel" else 0):
        raise TextModelError(
            f"{form.task} with {len(form.labels)} labels and {len(form.thresholds or ())} "
            "thresholds; only multilabel has thresholds, one per label"
        )
    inner = compose.add_prefix(model, PREFIX).graph
    nodes = Nodes("text/")
    _add_tokenizer(nodes, tables, rows, PREFIX)
    answers = Nodes("answer/")
    outputs = add_answers(answers, f"{PREFIX}logits", form.task, form.labels, form.thresholds)
    result = _model(
        [*nodes.nodes, *inner.node, *answers.nodes],
        [*nodes.constants.values(), *inner.initializer, *answers.constants.values()],
        rows.text_pair,
        [*outputs, *_row_facts()],
        {entry.domain: entry.version for entry in model.opset_import} | {"": opset},
    )
    result.functions.extend(model.functions)
    # known shapes let onnxruntime fuse what it fuses in the network alone: the order of additions,
    # and with it what is rounded where in an int8 file, is then the same
    result.graph.value_info.extend([*inner.input, *inner.value_info])
    described = {
        "task": form.task,
        "labels": json.dumps(list(form.labels), ensure_ascii=False),
        "max_length": str(form.max_length),
    }
    if form.thresholds is not None:
        described["thresholds"] = json.dumps(list(form.thresholds))
    kept = {entry.key: entry.value for entry in model.metadata_props}
    _describe(result, kept | described)
    return result


def build_row_model(tables: TextTables, rows: RowFormat, opset: int = 17) -> Any:
    """The tokenizer alone: its outputs are the inputs of the network."""
    nodes = Nodes("text/")
    _add_tokenizer(nodes, tables, rows, "")
    axes = ["batch", "sequence"]
    outputs: list[Output] = [*((name, INT64, axes) for name in ROW_NAMES), *_row_facts()]
    constants = list(nodes.constants.values())
    return _model(nodes.nodes, constants, rows.text_pair, outputs, {"": opset})


def _add_tokenizer(nodes: Nodes, tables: TextTables, rows: RowFormat, prefix: str) -> None:
    texts = ["text"]
    if rows.text_pair:
        # fails where the two inputs have different numbers of texts
        texts.append(nodes.add("Reshape", "text_pair", nodes.add("Shape", "text")))
    add_rows(nodes, add_pieces(nodes, texts, tables), rows, prefix)


def _row_facts() -> list[Output]:
    return [("token_count", INT64, ["batch"]), ("truncated", BOOL, ["batch"])]


def _check_model(model: Any) -> int:
    """The opset of a model that can be put behind the tokenizer."""
    opset = next((entry.version for entry in model.opset_import if entry.domain == ""), 0)
    if opset < OLDEST_OPSET:
        raise TextModelError(
            f"the model has opset {opset}; export it with export.opset = {OLDEST_OPSET} or more"
        )
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    if not set(inputs) <= set(ROW_NAMES) or outputs != ["logits"]:
        raise TextModelError(
            f"the model has inputs {inputs} and outputs {outputs}; a text model is made from an "
            f"exported student with {', '.join(ROW_NAMES)} and logits"
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


def _describe(model: Any, properties: dict[str, str]) -> None:
    from onnx import helper

    helper.set_model_props(model, properties)
