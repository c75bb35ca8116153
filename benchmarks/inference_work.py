"""How much a graph has to multiply, and how fast the same runtime multiplies large matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

INTEGER_PRODUCTS = ("MatMulInteger", "MatMulIntegerToFloat", "QLinearMatMul")
PRODUCTS = ("MatMul", "Gemm", "MatMulNBits", *INTEGER_PRODUCTS)
INTEGER = (*INTEGER_PRODUCTS, "QuantizeLinear")
PEAK_SIZE = 1024


@dataclass(frozen=True, slots=True)
class Work:
    """What a file computes at one shape.

    Args:
        operations: two for each multiplication and addition of its matrix products; None when
            some of them stand inside fused operators.
        integer: whether products are of 8-bit integers.
    """

    operations: int | None
    integer: bool


def count_work(file: Path, feed: dict[str, Any]) -> Work:
    """Run a file once with the sides of every product as outputs, and count."""
    model = onnx.load(file)
    types = {node.op_type for node in model.graph.node}
    integer = bool(types.intersection(INTEGER))
    if "Attention" in types:
        return Work(None, integer)
    nodes = [node for node in model.graph.node if node.op_type in PRODUCTS]
    fixed = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    shown = {value.name for value in model.graph.output}
    wanted = dict.fromkeys(name for node in nodes for name in (node.input[0], node.output[0]))
    names = [name for name in wanted if name not in fixed]
    model.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in names if name not in shown
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    shapes = dict(zip(names, (np.shape(v) for v in session.run(names, feed)), strict=True))
    shapes.update((name, tuple(dims)) for name, dims in fixed.items())
    products = (np.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1] for node in nodes)
    return Work(2 * int(sum(products)), integer)


def peak_runners(threads: int) -> dict[str, Callable[[], object]]:
    """Plain large products through onnxruntime: float32, and uint8 by int8."""
    random = np.random.default_rng(0)
    shape = (PEAK_SIZE, PEAK_SIZE)
    return {
        "fp32": _product(
            "MatMul",
            random.normal(size=shape).astype(np.float32),
            random.normal(size=shape).astype(np.float32),
            TensorProto.FLOAT,
            threads,
        ),
        "int8": _product(
            "MatMulInteger",
            random.integers(0, 255, shape).astype(np.uint8),
            random.integers(-127, 127, shape).astype(np.int8),
            TensorProto.INT32,
            threads,
        ),
    }


def _product(
    operator: str, left: Any, right: Any, result: int, threads: int
) -> Callable[[], object]:
    """A model of one product whose right side is a weight."""
    kind = helper.np_dtype_to_tensor_dtype(left.dtype)
    graph = helper.make_graph(
        [helper.make_node(operator, ["left", "right"], ["product"])],
        operator,
        [helper.make_tensor_value_info("left", kind, left.shape)],
        [helper.make_tensor_value_info("product", result, left.shape)],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"left": left})
