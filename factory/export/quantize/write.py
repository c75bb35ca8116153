"""Write an integer form of a plain fp32 ONNX file, and check what was written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.errors import ParityError
from factory.export.quantize.activation_ranges import ActivationStatistics
from factory.export.quantize.arrays import block_values, smoothing_factors
from factory.export.quantize.form import (
    SMALL_SIDE,
    IntegerForm,
    Product,
    Table,
    constants,
    find_products,
    find_tables,
)
from factory.export.quantize.nodes import (
    BLOCK,
    MICROSOFT,
    TABLE_BLOCK,
    Rewriting,
    add_product,
    add_table,
)

Floats = NDArray[np.float32]
Values = dict[str, NDArray[Any]]

INTEGERS = (2, 3)  # uint8 and int8 of onnx.TensorProto
# The largest relative error of an output channel or table row, by bits: several times what
# rounding leaves, far below what a wrong scale does.
LARGEST_ERROR = {8: 0.15, 4: 0.7}
# Where one weight is far larger than the others of its channel, 8-bit rounding alone leaves more:
# this many times the error of uniform rounding, step / sqrt(12) per weight.
ROUNDINGS = 4


def write_integer(
    source: Path,
    target: Path,
    form: IntegerForm,
    statistics: Mapping[str, ActivationStatistics],
) -> dict[str, Any]:
    """Write a copy of a plain fp32 file with integer weights, and check it.

    Args:
        statistics: of the activations on calibration rows; unused where products stay in float.

    Returns:
        `products`, `tables`: how many are integer; `left_in_float`: the reason per product or
        table; `size_bytes`.

    Raises:
        ParityError: the file does not hold what it should.
    """
    import onnx

    model = onnx.load(source)
    graph = model.graph
    items: list[Product | Table] = [*find_products(graph), *find_tables(graph)]
    left = {item.name: reason for item in items if (reason := _why_float(item, form))}
    products = [item for item in items if isinstance(item, Product) and item.name not in left]
    tables = [item for item in items if isinstance(item, Table) and item.name not in left]
    factors = _smoothing(products, form, statistics)
    smoothed = {name: statistics[name].divided(factors[name]) for name in factors}
    rewriting = Rewriting(form, {**statistics, **smoothed}, factors, _opset(model))
    replacements: dict[str, list[Any]] = {}
    for product in products:
        rewriting.nodes = replacements[product.node.output[0]] = []
        if product.addition is not None:
            replacements[product.output] = []
        add_product(rewriting, product)
    for table in tables:
        rewriting.nodes = replacements[table.node.output[0]] = []
        add_table(rewriting, table)
    _replace(model, replacements, rewriting.constants)
    onnx.save(model, target)
    meant = {item.weight_name for item in items if item.name in left}
    check_integer(target, meant | rewriting.constants.keys())
    check_stored(target, products, tables, factors, form)
    return {
        "products": len(products),
        "tables": len(tables),
        "left_in_float": left,
        "size_bytes": target.stat().st_size,
    }


def _why_float(item: Product | Table, form: IntegerForm) -> str | None:
    """Why a product or table stays in float; None where it does not."""
    if min(item.weight.shape) < SMALL_SIDE:
        return "small, {} x {}".format(*item.weight.shape)
    if isinstance(item, Product) and form.activations is None:
        return "the form keeps products"
    return None


def _smoothing(
    products: list[Product], form: IntegerForm, statistics: Mapping[str, ActivationStatistics]
) -> dict[str, Floats]:
    """Smoothing factors per activation that enters quantized products."""
    if not form.smoothing:
        return {}
    weights: dict[str, list[Floats]] = {}
    for product in products:
        weights.setdefault(product.source, []).append(product.weight)
    return {
        name: smoothing_factors(statistics[name].maxima(), read, form.smoothing)
        for name, read in weights.items()
    }


def _opset(model: Any) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return int(versions[0])


def _replace(model: Any, replacements: dict[str, list[Any]], values: Values) -> None:
    """Replace the old nodes by the new ones, and drop the weights that no node reads any more."""
    from onnx import helper, numpy_helper

    graph = model.graph
    nodes = [
        new
        for old in graph.node
        for new in replacements.get(old.output[0] if old.output else "", [old])
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in values)
    del graph.value_info[:]  # shapes of the float graph
    if all(entry.domain != MICROSOFT for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))


def check_integer(file: Path, expected: Collection[str]) -> None:
    """Check that every large float matrix of a file is one that is expected there.

    Args:
        expected: names of scales, and of weights that were meant to stay.

    Raises:
        ParityError: with every other one, or when nothing is quantized.
    """
    import onnx

    graph = onnx.load(file).graph
    large = [
        f"{tensor.name} {list(tensor.dims)}"
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and len(tensor.dims) == 2
        and min(tensor.dims) >= SMALL_SIDE
        and tensor.name not in expected
    ]
    if large:
        raise ParityError(f"{file}: large float weights left: {', '.join(large)}")
    if all(tensor.data_type not in INTEGERS for tensor in graph.initializer):
        raise ParityError(f"{file}: nothing is quantized")


def check_stored(
    file: Path,
    products: list[Product],
    tables: list[Table],
    factors: Mapping[str, Floats],
    form: IntegerForm,
) -> None:
    """Read every integer weight back and compare it with the float one.

    Args:
        products, tables: those of the fp32 file that are integer in this one.
        factors: smoothing factors per activation.

    Raises:
        ParityError: an output channel or a table row is far from what it was.
    """
    import onnx

    values = constants(onnx.load(file).graph)
    for product in products:
        weight = product.weight
        if product.source in factors:
            weight = weight * factors[product.source][:, None]
        found = _product_weight(values, product.name, len(weight))
        _compare(file, f"output channel of {product.name}", found.T, weight.T, form.bits)
    for table in tables:
        rows = _table_rows(values, table.name, table.weight.shape[1], form.bits)
        _compare(file, f"row of {table.name}", rows, table.weight, form.bits)


def _product_weight(values: Values, name: str, inputs: int) -> Floats:
    """The weights that the constants of a quantized product stand for: (inputs, outputs)."""
    scale = values[f"{name}/scale"]
    if f"{name}/nibbles" not in values:
        return np.asarray(values[f"{name}/weight"] * scale, dtype=np.float32)
    packed = values[f"{name}/nibbles"]
    levels = np.concatenate([packed & 15, packed >> 4]).astype(np.float32) - 8
    multipliers = np.repeat(values[f"{name}/multipliers"][:, 0], BLOCK, axis=0)
    return np.asarray((levels * multipliers)[:inputs] * scale, dtype=np.float32)


def _table_rows(values: Values, name: str, width: int, bits: int) -> Floats:
    """The rows that the constants of a quantized table stand for: (rows, width)."""
    rows, scale = values[f"{name}/rows"], values[f"{name}/scale"]
    if bits == 8:
        return np.asarray(rows * scale, dtype=np.float32)
    result = _nibble_rows(rows, scale, width)
    if f"{name}/precise/rows" in values:
        fine = _nibble_rows(values[f"{name}/precise/rows"], values[f"{name}/precise/scale"], width)
        count = int(values[f"{name}/last"])
        result[:count] += fine[:count]
    return result


def _nibble_rows(rows: NDArray[Any], scale: NDArray[Any], width: int) -> Floats:
    levels = np.stack([rows & 15, rows >> 4], axis=-1).reshape(len(rows), -1)
    missing = scale.shape[1] * TABLE_BLOCK - levels.shape[1]
    padded = np.pad(levels, ((0, 0), (0, missing)), constant_values=8)
    return block_values(padded.reshape(len(rows), -1, TABLE_BLOCK), scale, width)


def _compare(file: Path, what: str, found: Floats, wanted: Floats, bits: int) -> None:
    size = np.linalg.norm(wanted, axis=1)
    error = np.linalg.norm(found - wanted, axis=1)
    allowed = LARGEST_ERROR[bits] * size
    if bits == 8:
        step = np.abs(wanted).max(axis=1) / 63
        allowed = np.maximum(allowed, ROUNDINGS * step * np.sqrt(wanted.shape[1] / 12))
    wrong = ~(error <= allowed + 1e-6)  # a NaN is wrong too
    if wrong.any():
        first = int(wrong.argmax())
        raise ParityError(
            f"{file}: {what}: {int(wrong.sum())} of {len(wrong)} are far from the float weights, "
            f"the first is number {first + 1} with a relative error of "
            f"{error[first] / max(size[first], 1e-6):.2g}"
        )
