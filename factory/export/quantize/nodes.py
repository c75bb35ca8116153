"""Write quantized products and table lookups into a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.export.quantize.activation_ranges import ActivationStatistics
from factory.export.quantize.arrays import (
    asymmetric_scale,
    block_values,
    pack_nibbles,
    quantize_blocks,
    quantize_columns,
    quantize_nibbles,
)
from factory.export.quantize.form import IntegerForm, Product, Table

MICROSOFT = "com.microsoft"
MIDDLE = 128  # the zero point of symmetric unsigned activations
SMALLEST_ROW = 1e-6  # a row of zeros is divided by this
BLOCK, TABLE_BLOCK = 32, 512  # inputs, and numbers of a table's row, per scale of 4-bit weights
FLOAT, INT8 = 1, 3  # onnx.TensorProto element types
ROW_STEP = ("rows/step", np.float32(1 / 127))  # the scale of rows that reach from -1 to 1


@dataclass(slots=True)
class Rewriting:
    """The replacement of a part of a graph.

    Args:
        statistics: of the activations, with channels divided by the factors.
        factors: smoothing factors per activation; none where it is not smoothed.
        opset: of the graph; ReduceMax changed at 18.
        nodes: the new nodes, in the order they run.
        constants: their constant inputs.
        quantized: integers, scale and zero point of activations that are quantized already.
    """

    form: IntegerForm
    statistics: Mapping[str, ActivationStatistics]
    factors: Mapping[str, NDArray[np.float32]]
    opset: int
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    quantized: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def node(
        self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node named after its output; returns the output."""
        from onnx import helper

        name = f"{output}/{operator}"
        self.nodes.append(
            helper.make_node(operator, inputs, [output], name=name, domain=domain, **attributes)
        )
        return output

    def constant(self, name: str, value: Any) -> str:
        """Add a constant tensor; returns its name."""
        self.constants[name] = np.asarray(value)
        return name


def add_product(rewriting: Rewriting, product: Product) -> None:
    """Write the integer form of one product, bias included.

    Rows are divided by their own scale before the product, which is multiplied by it afterwards:
    the product itself has one constant scale, so that ONNX Runtime's fused operator runs it.
    """
    integers, scale = _weight(rewriting, product)
    source, source_scale, zero = _quantized(rewriting, product.source)
    name = product.output
    if rewriting.form.activations == "static":
        inputs = [source, integers, source_scale, scale, zero]
        if product.bias is not None:
            inputs += ["", product.bias]
        rewriting.node("MatMulIntegerToFloat", inputs, name, domain=MICROSOFT)
        return
    inputs = [source, integers, rewriting.constant(*ROW_STEP), scale, zero]
    rewriting.node("MatMulIntegerToFloat", inputs, f"{name}/scaled", domain=MICROSOFT)
    last = name if product.bias is None else f"{name}/product"
    rewriting.node("Mul", [f"{name}/scaled", source_scale], last)
    if product.bias is not None:
        rewriting.node("Add", [last, product.bias], name)


def _weight(rewriting: Rewriting, product: Product) -> tuple[str, str]:
    """Names of the 8-bit weights and of their scale per column."""
    form, name = rewriting.form, product.node.name
    factors = rewriting.factors.get(product.source)
    weight = product.weight if factors is None else product.weight * factors[:, None]
    moments = rewriting.statistics[product.source].moments
    if form.bits == 4:
        levels, multipliers, scale = quantize_nibbles(weight, BLOCK, moments, form.seven_bits)
        integers = _add_nibbles(rewriting, name, levels, multipliers)
    else:
        values, scale = quantize_columns(weight, 63 if form.seven_bits else 127, moments)
        integers = rewriting.constant(f"{name}/weight", values)
    return integers, rewriting.constant(f"{name}/scale", scale)


def _add_nibbles(
    rewriting: Rewriting, name: str, levels: NDArray[np.int8], multipliers: NDArray[np.int8]
) -> str:
    """Nodes that unpack 4-bit weights to 8 bits.

    All of their inputs are constant: ONNX Runtime runs them once, when it opens the file.

    Shapes:
        levels: (inputs, outputs), multipliers: (blocks, outputs)
    """
    inputs, outputs = levels.shape
    padded = np.full((len(multipliers) * BLOCK, outputs), 8, dtype=np.uint8)
    padded[:inputs] = levels + 8
    half = len(padded) // 2
    # the first half of the rows in the low nibbles, the second in the high ones
    packed = rewriting.constant(f"{name}/nibbles", padded[:half] | (padded[half:] << 4))
    four = rewriting.constant("nibbles/four", np.uint8(4))
    shifted = rewriting.node("BitShift", [packed, four], f"{name}/shifted", direction="LEFT")
    low = rewriting.node("BitShift", [shifted, four], f"{name}/low", direction="RIGHT")
    high = rewriting.node("BitShift", [packed, four], f"{name}/high", direction="RIGHT")
    both = rewriting.node("Concat", [low, high], f"{name}/both", axis=0)
    floats = rewriting.node("Cast", [both], f"{name}/levels", to=FLOAT)
    middle = rewriting.constant("nibbles/middle", np.float32(8))
    signed = rewriting.node("Sub", [floats, middle], f"{name}/signed")
    shape = rewriting.constant(f"nibbles/blocks_{outputs}", np.array([-1, BLOCK, outputs]))
    grouped = rewriting.node("Reshape", [signed, shape], f"{name}/grouped")
    small = rewriting.constant(f"{name}/multipliers", multipliers[:, None, :])
    factor = rewriting.node("Cast", [small], f"{name}/factors", to=FLOAT)
    scaled = rewriting.node("Mul", [grouped, factor], f"{name}/multiplied")
    flat = rewriting.constant(f"nibbles/flat_{outputs}", np.array([-1, outputs]))
    whole = rewriting.node("Reshape", [scaled, flat], f"{name}/whole")
    if inputs < len(padded):
        start = rewriting.constant("nibbles/start", np.array([0]))
        end = rewriting.constant(f"nibbles/end_{inputs}", np.array([inputs]))
        whole = rewriting.node("Slice", [whole, start, end], f"{name}/cut")
    return rewriting.node("Cast", [whole], f"{name}/weight", to=INT8)


def _quantized(rewriting: Rewriting, source: str) -> tuple[str, str, str]:
    """Integers, scale and zero point of an activation; added once for all its readers."""
    if source not in rewriting.quantized:
        smooth = source
        if source in rewriting.factors:
            inverse = (1 / rewriting.factors[source]).astype(np.float32)
            smoothing = rewriting.constant(f"{source}/smoothing", inverse)
            smooth = rewriting.node("Mul", [source, smoothing], f"{source}/smoothed")
        if rewriting.form.activations == "rows":
            rewriting.quantized[source] = _add_rows(rewriting, source, smooth)
        else:
            seen = rewriting.statistics[source]
            step, middle = asymmetric_scale(float(seen.low.min()), float(seen.high.max()))
            scale = rewriting.constant(f"{source}/static_scale", step)
            zero = rewriting.constant(f"{source}/static_zero", middle)
            integers = rewriting.node("QuantizeLinear", [smooth, scale, zero], f"{source}/static")
            rewriting.quantized[source] = integers, scale, zero
    return rewriting.quantized[source]


def _add_rows(rewriting: Rewriting, source: str, smooth: str) -> tuple[str, str, str]:
    """Rows divided by their largest magnitude, (..., width) -> (..., 1), then one scale for all."""
    least = rewriting.constant("rows/least", np.float32(SMALLEST_ROW))
    middle = rewriting.constant("rows/middle", np.uint8(MIDDLE))
    magnitudes = rewriting.node("Abs", [smooth], f"{source}/rows_abs")
    name = f"{source}/rows_maximum"
    if rewriting.opset < 18:
        largest = rewriting.node("ReduceMax", [magnitudes], name, axes=[-1], keepdims=1)
    else:
        axes = rewriting.constant("rows/axes", np.array([-1]))
        largest = rewriting.node("ReduceMax", [magnitudes, axes], name, keepdims=1)
    scale = rewriting.node("Max", [largest, least], f"{source}/rows_scale")
    divided = rewriting.node("Div", [smooth, scale], f"{source}/rows_divided")
    step = rewriting.constant(*ROW_STEP)
    integers = rewriting.node("QuantizeLinear", [divided, step, middle], f"{source}/rows")
    return integers, scale, middle


def add_table(rewriting: Rewriting, table: Table) -> None:
    """Write the integer form of one table's lookup."""
    indices, name, output = table.node.input[1], table.node.name, table.node.output[0]
    if rewriting.form.bits == 8:
        integers, scales = quantize_columns(np.ascontiguousarray(table.weight.T), 127)
        rows = rewriting.constant(f"{name}/rows", np.ascontiguousarray(integers.T))
        scale = rewriting.constant(f"{name}/scale", scales[:, None])
        found = rewriting.node("Gather", [rows, indices], f"{output}/integers", axis=0)
        scaling = rewriting.node("Gather", [scale, indices], f"{output}/scale", axis=0)
        floats = rewriting.node("Cast", [found], f"{output}/float", to=FLOAT)
        rewriting.node("Mul", [floats, scaling], output)
        return
    precise = min(rewriting.form.precise_rows, len(table.weight))
    coarse = f"{output}/coarse"
    values = _add_nibble_rows(rewriting, table.weight, indices, name, coarse)
    # the errors of the first rows, then a row of zeros that all others look up
    rest = np.zeros((precise + 1, table.weight.shape[1]), dtype=np.float32)
    rest[:precise] = (table.weight - values)[:precise]
    last = rewriting.constant(f"{name}/last", np.int64(precise))
    index = rewriting.node("Min", [indices, last], f"{output}/precise_indices")
    _add_nibble_rows(rewriting, rest, index, f"{name}/precise", f"{output}/fine")
    rewriting.node("Add", [coarse, f"{output}/fine"], output)


def _add_nibble_rows(
    rewriting: Rewriting, weight: NDArray[np.float32], indices: str, name: str, output: str
) -> NDArray[np.float32]:
    """A lookup in a 4-bit table of even width; returns the unpacked numbers."""
    levels, scales = quantize_blocks(weight, TABLE_BLOCK)
    width = weight.shape[1]
    packed = pack_nibbles(levels.reshape(len(levels), -1)[:, :width])
    rows = rewriting.constant(f"{name}/rows", packed)
    scale = rewriting.constant(f"{name}/scale", scales)
    rewriting.node(
        "GatherBlockQuantized",
        [rows, indices, scale],
        output,
        domain=MICROSOFT,
        bits=4,
        block_size=TABLE_BLOCK,
        gather_axis=0,
        quantize_axis=1,
    )
    return block_values(levels, scales, width)
