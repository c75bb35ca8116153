"""What the integers and scales of a written file stand for, against the weights they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.errors import ParityError
from factory.export.quantize.arrays import block_values
from factory.export.quantize.form import IntegerForm, Product, Table, constants

Values = dict[str, NDArray[Any]]
Floats = NDArray[np.float32]

# The largest relative error of an output channel or table row, by bits: several times what
# rounding leaves, far below what a wrong scale does.
LARGEST_ERROR = {8: 0.15, 4: 0.7}
# Where one weight is far larger than the others of its channel, 8-bit rounding alone leaves more:
# this many times the error of uniform rounding, step / sqrt(12) per weight.
ROUNDINGS = 4


def check_stored(
    file: Path,
    products: list[Product],
    tables: list[Table],
    factors: dict[str, Floats],
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
        found = product_weight(values, product.name, weight.shape, form)
        _check(file, f"output channel of {product.name}", found.T, weight.T, form.weight_bits)
    for table in tables:
        rows = table_rows(values, table.name, table.weight.shape[1], form)
        bits = 8 if form.embeddings == "int8" else 4
        _check(file, f"row of {table.name}", rows, table.weight, bits)


def product_weight(values: Values, name: str, shape: tuple[int, ...], form: IntegerForm) -> Floats:
    """The weights that the constants of a quantized product stand for: (inputs, outputs)."""
    scale = values[f"{name}/scale"]
    if values.get(f"{name}/weight", scale).ndim == 3:  # (outputs, blocks, bytes)
        packed = values[f"{name}/weight"]
        levels = unpack_nibbles(packed) if form.weight_bits == 4 else packed
        return block_values(levels, scale, form.weight_bits, shape[0]).T
    if f"{name}/nibbles" not in values:
        return np.asarray(values[f"{name}/weight"] * scale, dtype=np.float32)
    packed = values[f"{name}/nibbles"]
    levels = np.concatenate([packed & 15, packed >> 4]).astype(np.float32) - 8
    multipliers = np.repeat(values[f"{name}/multipliers"][:, 0], form.block_size, axis=0)
    return np.asarray((levels * multipliers)[: shape[0]] * scale, dtype=np.float32)


def table_rows(values: Values, name: str, width: int, form: IntegerForm) -> Floats:
    """The rows that the constants of a quantized table stand for: (rows, width)."""
    rows, scale = values[f"{name}/rows"], values[f"{name}/scale"]
    if form.embeddings == "int8":
        return np.asarray(rows * scale, dtype=np.float32)
    result = _nibble_rows(rows, scale, width, form.embedding_block)
    if f"{name}/precise/rows" in values:
        fine, fine_scale = values[f"{name}/precise/rows"], values[f"{name}/precise/scale"]
        count = int(values[f"{name}/last"])
        result[:count] += _nibble_rows(fine, fine_scale, width, form.embedding_block)[:count]
    return result


def unpack_nibbles(packed: NDArray[Any]) -> NDArray[np.uint8]:
    """The reverse of `pack_nibbles`: (..., half) -> (..., even)."""
    both = np.stack([packed & 15, packed >> 4], axis=-1)
    return both.reshape(*packed.shape[:-1], -1)


def _nibble_rows(rows: NDArray[Any], scale: NDArray[Any], width: int, block_size: int) -> Floats:
    levels = unpack_nibbles(rows)
    missing = scale.shape[1] * block_size - levels.shape[1]
    padded = np.pad(levels, ((0, 0), (0, missing)), constant_values=8)
    return block_values(padded.reshape(len(rows), -1, block_size), scale, 4, width)


def _check(file: Path, what: str, found: Floats, wanted: Floats, bits: int) -> None:
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
