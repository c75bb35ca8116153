"""The settings of an integer form, and the products and tables of a graph to quantize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from factory.export.onnx import OUTPUT_NAME

# A classifier of up to this many numbers stays in float, 32 labels of a student 312 wide: it adds
# nothing to the file's size, and no later layer evens out its error. Every other product of a
# shipped shape is larger.
SMALL_CLASSIFIER = 10_000
SMALL_TABLE = 24  # a table with fewer rows stays in float: token types


@dataclass(frozen=True, slots=True)
class IntegerForm:
    """How weights, activations and embedding tables are quantized.

    Weights are signed and symmetric, with one scale per output channel. Each input's weights are
    rounded so that they compensate the error of those rounded before, on the calibration rows
    (GPTQ, arXiv 2210.17323).

    Args:
        activations: source of the scale of a product's input. "rows": each token at run
            time; "static": a constant from calibration; None: the products stay in float.
        bits: of weights and tables. With 4, products still run with 8 bits, and tables have one
            scale per 512 numbers instead of one per row.
        seven_bits: 8-bit weights use 7, so that products cannot overflow the 16-bit sums of
            processors without VNNI.
        smoothing: how much of the spread between input channels moves into the weights, 0 to 1
            (SmoothQuant, arXiv 2211.10438, equation 4); 0: none.
        precise_rows: the first rows of a 4-bit table, which hold the frequent pieces of a
            published vocabulary, get 4 more bits.
    """

    activations: Literal["rows", "static"] | None
    bits: Literal[4, 8] = 8
    seven_bits: bool = False
    smoothing: float = 0.0
    precise_rows: int = 6144


@dataclass(frozen=True, slots=True)
class Product:
    """A product of activations with a constant matrix, and the addition of its bias.

    Args:
        node: the MatMul or Gemm; its second input is the matrix.
        weight: (inputs, outputs).
        bias: name of the bias that is added, or None.
        addition: the node that adds it, if it is a separate one.
    """

    node: Any
    weight: NDArray[np.float32]
    bias: str | None
    addition: Any = None

    @property
    def source(self) -> str:
        """Name of the activations."""
        return str(self.node.input[0])

    @property
    def output(self) -> str:
        """Name of the sum of product and bias."""
        return str((self.addition or self.node).output[0])

    def kept_in_float(self, form: IntegerForm) -> str | None:
        """Why the matrix stays in float; None if it is quantized."""
        if form.activations is None:
            return "the form keeps products"
        small = self.output == OUTPUT_NAME and self.weight.size <= SMALL_CLASSIFIER
        return "small classifier, {} x {}".format(*self.weight.shape) if small else None


@dataclass(frozen=True, slots=True)
class Table:
    """An embedding table and the node that looks rows up in it.

    Args:
        node: the Gather; its inputs are the table and the indices.
        weight: (rows, width).
    """

    node: Any
    weight: NDArray[np.float32]

    def kept_in_float(self, form: IntegerForm) -> str | None:
        """Why the table stays in float; None if it is quantized."""
        rows, width = self.weight.shape
        if form.bits == 4 and width % 2:
            return "two 4-bit numbers share a byte, and the width is odd"
        return f"small table, {rows} x {width}" if rows < SMALL_TABLE else None


def constants(graph: Any) -> dict[str, NDArray[Any]]:
    """The constant tensors of a graph by name."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def find_products(graph: Any) -> list[Product]:
    """Every MatMul and Gemm whose second input is a constant matrix, in the order of the graph."""
    values = constants(graph)
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for value in graph.output:
        readers.setdefault(value.name, []).append(value)  # so that it stays
    found = []
    for node in graph.node:
        weight = values.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
            continue
        if node.op_type == "MatMul":
            addition, bias = _added_bias(readers.get(node.output[0], []), weight.shape[1], values)
            found.append(Product(node, weight, bias, addition))
        elif node.op_type == "Gemm" and _is_plain(node):
            oriented = np.ascontiguousarray(weight.T) if _attribute(node, "transB", 0) else weight
            found.append(Product(node, oriented, node.input[2] if len(node.input) > 2 else None))
    return found


def _is_plain(gemm: Any) -> bool:
    factors = [_attribute(gemm, name, 1.0) for name in ("alpha", "beta")]
    return factors == [1.0, 1.0] and not _attribute(gemm, "transA", 0)


def find_tables(graph: Any) -> list[Table]:
    """Every lookup of rows in a constant float matrix, in the order of the graph."""
    values = constants(graph)
    found = []
    for node in graph.node:
        if node.op_type == "Gather" and _attribute(node, "axis", 0) == 0:
            weight = values.get(node.input[0])
            if weight is not None and weight.ndim == 2 and weight.dtype == np.float32:
                found.append(Table(node, weight))
    return found


def _added_bias(
    readers: list[Any], outputs: int, values: dict[str, NDArray[Any]]
) -> tuple[Any, str | None]:
    """The one node that reads a product and adds a constant vector to it, and the vector."""
    if len(readers) != 1 or getattr(readers[0], "op_type", None) != "Add":
        return None, None
    for name in readers[0].input:
        if name in values and values[name].shape == (outputs,):
            return readers[0], name
    return None, None


def _attribute(node: Any, name: str, default: float) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
