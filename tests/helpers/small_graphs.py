"""Graphs of one or two products and a table, made by hand, and runs of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]


def write_graph(
    file: Path,
    nodes: list[Any],
    inputs: dict[str, int],
    weights: dict[str, Floats],
    opset: int = 17,
    outputs: tuple[str, ...] = ("out",),
) -> Path:
    """A file with float or int64 inputs by name and element type; every axis is free."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)
    return file


def one_product(file: Path, weight: Floats, bias: Floats | None = None, opset: int = 17) -> Path:
    """out = x @ weight (+ bias), called "/dense/MatMul"."""
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["product"], name="/dense/MatMul")]
    weights = {"weight": weight}
    if bias is not None:
        weights["bias"] = bias
        nodes.append(helper.make_node("Add", ["bias", "product"], ["out"], name="/dense/Add"))
    else:
        nodes[0].output[0] = "out"
    return write_graph(file, nodes, {"x": TensorProto.FLOAT}, weights, opset)


def one_table(file: Path, weight: Floats) -> Path:
    """out = weight[ids], called "/words/Gather"."""
    node = helper.make_node("Gather", ["weight", "ids"], ["out"], name="/words/Gather")
    return write_graph(file, [node], {"ids": TensorProto.INT64}, {"weight": weight})


def run_graph(file: Path, **feed: NDArray[Any]) -> Floats:
    """The first output."""
    from factory.export.parity import open_session

    result: Floats = open_session(file, threads=1).run(None, feed)[0]
    return result


def operations(file: Path) -> list[str]:
    """The operators of a file in order."""
    return [node.op_type for node in onnx.load(file).graph.node]


def values_of(file: Path) -> dict[str, NDArray[Any]]:
    """The constants of a file."""
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}
