"""What an integer form is, and the products and tables of a graph that it applies to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Activations = Literal["rows", "static"]

# A matrix with fewer rows or columns stays in float: token types, a classifier of few labels. It
# adds nothing to the file's size, and no later layer evens out the classifier's error.
SMALL_SIDE = 24


@dataclass(frozen=True, slots=True)
class IntegerForm:
    """How weights, activations and embedding tables are quantized.

    Weights are signed and symmetric, with one scale per output channel. Each input's weights are
    rounded so that they make up for the error of those rounded before, on the calibration rows
    (GPTQ, arXiv 2210.17323).

    Args:
        activations: where the scale of a product's input comes from. "rows": each token at run
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

    activations: Activations | None
    bits: Literal[4, 8] = 8
    seven_bits: bool = False
    smoothing: float = 0.0
    precise_rows: int = 6144


@dataclass(frozen=True, slots=True)
class Product:
    """A product of activations with a constant matrix, and the addition of its bias.

    Args:
        node: the MatMul or Gemm.
        source: name of the activations.
        bias: name of the bias that is added, or None.
        addition: the node that adds it, where that is one of its own.

    Shapes:
        weight: (inputs, outputs)
    """

    node: Any
    source: str
    weight: NDArray[np.float32]
    bias: str | None
    addition: Any = None

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.node.name or self.node.output[0])

    @property
    def weight_name(self) -> str:
        """Name of the constant."""
        return str(self.node.input[1])

    @property
    def output(self) -> str:
        """Name of the sum of product and bias."""
        last = self.node if self.addition is None else self.addition
        return str(last.output[0])


@dataclass(frozen=True, slots=True)
class Table:
    """An embedding table and the node that looks rows up in it.

    Shapes:
        weight: (rows, width)
    """

    node: Any
    indices: str
    weight: NDArray[np.float32]

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.node.name or self.node.output[0])

    @property
    def weight_name(self) -> str:
        """Name of the constant."""
        return str(self.node.input[0])


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
            found.append(Product(node, node.input[0], weight, bias, addition))
        elif node.op_type == "Gemm" and _is_plain(node):
            oriented = np.ascontiguousarray(weight.T) if _attribute(node, "transB", 0) else weight
            bias = node.input[2] if len(node.input) > 2 else None
            found.append(Product(node, node.input[0], oriented, bias))
    return found


def find_tables(graph: Any) -> list[Table]:
    """Every lookup of rows in a constant float matrix, in the order of the graph."""
    values = constants(graph)
    found = []
    for node in graph.node:
        if node.op_type == "Gather" and _attribute(node, "axis", 0) == 0:
            weight = values.get(node.input[0])
            if weight is not None and weight.ndim == 2 and weight.dtype == np.float32:
                found.append(Table(node, node.input[1], weight))
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


def _is_plain(gemm: Any) -> bool:
    return not _attribute(gemm, "transA", 0) and all(
        bool(_attribute(gemm, name, 1.0) == 1.0) for name in ("alpha", "beta")
    )


def _attribute(node: Any, name: str, default: float) -> Any:
    from onnx import helper

    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
