"""What a quantized file is made of: the form, and the products and tables it applies to."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from factory.errors import ParityError

Activations = Literal["dynamic", "rows", "static", "blocks"]
Embeddings = Literal["float", "int8", "int4"]

# Smaller weights stay in float: token types, a classifier of few labels. They weigh nothing, and
# nothing dampens the error of the last product.
SMALL_WEIGHT = 10_000


@dataclass(frozen=True, slots=True)
class IntegerForm:
    """How weights, activations and embedding tables are quantized.

    Weights are signed and symmetric, with one scale per output channel.

    Args:
        activations: where the scale of a product's input comes from. "dynamic": the whole tensor
            at run time, so that an answer depends on its neighbours in the batch; "rows": each
            token at run time; "static": a constant from calibration; "blocks": each block of
            `block_size` inputs of each token, inside one operator of ONNX Runtime.
        embeddings: "int8" keeps one scale per row, "int4" one per `embedding_block` numbers.
        rows: products whose input is scaled per token though the form is "static".
        keep_float: products and tables left in float.
        reduced_range: 7-bit weights, whose products cannot overflow the 16-bit sums of processors
            without VNNI.
        smoothing: how much of the spread between input channels moves into the weights, 0 to 1
            (SmoothQuant, arXiv 2211.10438, equation 4); None: none.
        compensated: round each input's weights so that they make up for the error of those rounded
            before, on the calibration rows (GPTQ, arXiv 2210.17323); needs ranges.
        weight_bits: 4 stores half the bytes; the products are the same 8-bit ones.
        block_size: inputs per scale of "blocks" and of 4-bit weights; a power of two from 16.
        embedding_block: numbers of a row per scale of "int4"; a power of two from 16.
        precise_rows: the first rows of a table, which hold the frequent pieces, get 4 more bits in
            "int4".

    `rows` and `keep_float` hold node names; `*` and `?` stand for any text and character.
    """

    activations: Activations
    embeddings: Embeddings = "int8"
    rows: tuple[str, ...] = ()
    keep_float: tuple[str, ...] = ()
    reduced_range: bool = False
    smoothing: float | None = None
    compensated: bool = False
    weight_bits: Literal[4, 8] = 8
    block_size: int = 32
    embedding_block: int = 64
    precise_rows: int = 0

    @property
    def neighbour_independent(self) -> bool:
        """Whether a text's logits are the same whatever else is in its batch."""
        return self.activations != "dynamic"

    @property
    def needs_calibration(self) -> bool:
        """Whether `write_integer` has to be given the ranges of activations."""
        return self.activations == "static" or self.compensated or self.smoothing is not None


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
        """The node's name, which `keep_float` and `rows` refer to."""
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
        """The node's name, which `keep_float` refers to."""
        return str(self.node.name or self.node.output[0])

    @property
    def weight_name(self) -> str:
        """Name of the constant."""
        return str(self.node.input[0])


def constants(graph: Any) -> dict[str, NDArray[Any]]:
    """The constant tensors of a graph by name."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def find_items(graph: Any) -> list[Product | Table]:
    """Every product and every table."""
    return [*find_products(graph), *find_tables(graph)]


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


def chosen(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a node's name is among the given names and patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_form(form: IntegerForm, names: list[str]) -> None:
    """Check that a form makes sense, and that its names stand for products and tables of a graph.

    Raises:
        ParityError: with the first thing wrong.
    """
    for size in (form.block_size, form.embedding_block):
        if size < 16 or size & (size - 1):
            raise ParityError(f"a block of {size} numbers: use a power of two from 16")
    if form.smoothing is not None and not 0 <= form.smoothing <= 1:
        raise ParityError(f"smoothing is {form.smoothing:g}; it goes from 0 to 1")
    for pattern in (*form.keep_float, *form.rows):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ParityError(
                f"no product or embedding table of this graph is called {pattern!r}; "
                f"it has {', '.join(names)}"
            )


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
