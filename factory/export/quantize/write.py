"""Write an integer form of a plain fp32 ONNX file, and verify the written file."""

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
# The largest relative error of an output channel or table row, by bits: several times the error of
# rounding, far below that of a wrong scale.
LARGEST_ERROR = {8: 0.15, 4: 0.7}
# If one weight is far larger than the others of its channel, 8-bit rounding alone has a larger
# error: up to this many times that of uniform rounding, step / sqrt(12) per weight.
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
        ParityError: weights are left in float, or far from the float weights.
    """
    import onnx

    model = onnx.load(source)
    items: list[Product | Table] = [*find_products(model.graph), *find_tables(model.graph)]
    left = {item.node.name: reason for item in items if (reason := item.kept_in_float(form))}
    changed = [item for item in items if item.node.name not in left]
    products = [item for item in changed if isinstance(item, Product)]
    tables = [item for item in changed if isinstance(item, Table)]
    factors = _smoothing(products, form, statistics)
    smoothed = {name: statistics[name].divided(factors[name]) for name in factors}
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    rewriting = Rewriting(form, {**statistics, **smoothed}, factors, opset)
    replacements: dict[str, list[Any]] = {}
    for item in changed:
        rewriting.nodes = replacements[item.node.output[0]] = []
        if isinstance(item, Table):
            add_table(rewriting, item)
            continue
        add_product(rewriting, item)
        if item.addition is not None:
            replacements[item.output] = []
    _replace(model, replacements, rewriting.constants)
    onnx.save(model, target)
    meant = {name for item in items if item.node.name in left for name in item.node.input}
    check_integer(target, meant | rewriting.constants.keys())
    check_stored(target, products, tables, factors, form)
    return {
        "products": len(products),
        "tables": len(tables),
        "left_in_float": left,
        "size_bytes": target.stat().st_size,
    }


def _smoothing(
    products: list[Product], form: IntegerForm, statistics: Mapping[str, ActivationStatistics]
) -> dict[str, Floats]:
    """Smoothing factors per activation that enters quantized products."""
    weights: dict[str, list[Floats]] = {}
    for product in products if form.smoothing else ():
        weights.setdefault(product.source, []).append(product.weight)
    return {
        name: smoothing_factors(statistics[name].maxima(), read, form.smoothing)
        for name, read in weights.items()
    }


def _replace(model: Any, replacements: dict[str, list[Any]], values: Values) -> None:
    """Replace the old nodes with the new ones, and drop the weights that no node reads any more."""
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
    """Check that every float matrix of a file is an expected one.

    Args:
        expected: names of scales, and of weights that are meant to stay in float.

    Raises:
        ParityError: with the names of all others, or if nothing is quantized.
    """
    import onnx

    tensors = onnx.load(file).graph.initializer
    unexpected = [
        f"{tensor.name} {list(tensor.dims)}"
        for tensor in tensors
        if tensor.data_type == onnx.TensorProto.FLOAT
        and len(tensor.dims) == 2
        and tensor.name not in expected
    ]
    if unexpected:
        raise ParityError(f"{file}: float weights left: {', '.join(unexpected)}")
    if all(tensor.data_type not in INTEGERS for tensor in tensors):
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
        ParityError: an output channel or a table row is far from the float one.
    """
    import onnx

    values = constants(onnx.load(file).graph)
    for product in products:
        weight = product.weight
        if product.source in factors:
            weight = weight * factors[product.source][:, None]
        found = _product_weight(values, product.node.name, len(weight))
        _compare(file, f"output channel of {product.node.name}", found.T, weight.T, form.bits)
    for table in tables:
        name, width = table.node.name, table.weight.shape[1]
        if form.bits == 8:
            rows = values[f"{name}/rows"] * values[f"{name}/scale"]
        else:
            rows = _nibble_rows(values, name, width)
            fine = _nibble_rows(values, f"{name}/precise", width)[:-1]
            rows[: len(fine)] += fine
        _compare(file, f"row of {name}", rows, table.weight, form.bits)


def _product_weight(values: Values, name: str, inputs: int) -> Floats:
    """The weights that the constants of a quantized product represent: (inputs, outputs)."""
    scale = values[f"{name}/scale"]
    if f"{name}/nibbles" not in values:
        return np.asarray(values[f"{name}/weight"] * scale, dtype=np.float32)
    packed = values[f"{name}/nibbles"]
    levels = np.concatenate([packed & 15, packed >> 4]).astype(np.float32) - 8
    multipliers = np.repeat(values[f"{name}/multipliers"][:, 0], BLOCK, axis=0)
    return np.asarray((levels * multipliers)[:inputs] * scale, dtype=np.float32)


def _nibble_rows(values: Values, name: str, width: int) -> Floats:
    """The rows that the constants of a 4-bit table represent: (rows, width)."""
    packed, scale = values[f"{name}/rows"], values[f"{name}/scale"]
    levels = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), width)
    padding = ((0, 0), (0, scale.shape[1] * TABLE_BLOCK - width))
    padded = np.pad(levels, padding, constant_values=8)
    return block_values(padded.reshape(len(packed), -1, TABLE_BLOCK), scale, width)


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
