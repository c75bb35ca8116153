"""Write an integer form of a plain fp32 ONNX file, and check what was written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.errors import ParityError
from factory.export.quantize.arrays import smoothing_factors
from factory.export.quantize.calibration import ActivationRanges
from factory.export.quantize.form import (
    SMALL_WEIGHT,
    Activations,
    IntegerForm,
    Product,
    Table,
    check_form,
    chosen,
    find_items,
    find_products,
    find_tables,
)
from factory.export.quantize.nodes import MICROSOFT, Rewriting, add_product, add_table
from factory.export.quantize.stored import check_stored

INTEGERS = (2, 3)  # uint8 and int8 of onnx.TensorProto


def write_integer(
    source: Path, target: Path, form: IntegerForm, ranges: ActivationRanges | None = None
) -> dict[str, Any]:
    """Write a copy of a plain fp32 file with integer weights, and check it.

    Args:
        ranges: of the activations on calibration rows, where the form needs them.

    Returns:
        `products`: how many run with each kind of activations; `tables`: how many are integer;
        `left_in_float`: the reason per product or table; `neighbour_independent`; `size_bytes`.

    Raises:
        ParityError: the form names what is not there or lacks the ranges it needs, or the file
            does not hold what it should.
    """
    import onnx

    model = onnx.load(source)
    graph = model.graph
    items = find_items(graph)
    check_form(form, [item.name for item in items])
    if form.needs_calibration and ranges is None:
        raise ParityError(f"{form} needs the ranges of activations; calibrate on train rows first")
    left = {item.name: reason for item in items if (reason := why_float(item, form))}
    products = [product for product in find_products(graph) if product.name not in left]
    tables = [table for table in find_tables(graph) if table.name not in left]
    rewriting = Rewriting(ranges, smoothing_of(products, form, ranges), _opset(model))
    replacements: dict[str, list[Any]] = {}
    for product in products:
        rewriting.nodes = replacements[product.node.output[0]] = []
        if product.addition is not None:
            replacements[product.output] = []
        add_product(rewriting, product, activations_of(product, form), form)
    for table in tables:
        rewriting.nodes = replacements[table.node.output[0]] = []
        add_table(rewriting, table, form)
    _replace(model, replacements, rewriting.constants)
    onnx.save(model, target)
    meant = {item.weight_name for item in items if item.name in left}
    check_integer(target, meant | rewriting.constants.keys())
    check_stored(target, products, tables, rewriting.factors, form)
    return {
        "products": dict(Counter(activations_of(product, form) for product in products)),
        "tables": len(tables),
        "left_in_float": left,
        "neighbour_independent": form.neighbour_independent,
        "size_bytes": target.stat().st_size,
    }


def check_integer(file: Path, expected: Collection[str]) -> None:
    """Check that every large float constant of a file is one that is expected there.

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
        and math.prod(tensor.dims) > SMALL_WEIGHT
        and tensor.name not in expected
    ]
    if large:
        raise ParityError(f"{file}: large float weights left: {', '.join(large)}")
    if all(tensor.data_type not in INTEGERS for tensor in graph.initializer):
        raise ParityError(f"{file}: nothing is quantized")


def why_float(item: Product | Table, form: IntegerForm) -> str | None:
    """Why a product or table stays in float; None where it does not."""
    if chosen(item.name, form.keep_float):
        return "named by the form"
    if item.weight.size <= SMALL_WEIGHT:
        return f"small, {item.weight.size} numbers"
    if isinstance(item, Table) and form.embeddings == "float":
        return "the form keeps embeddings"
    return None


def activations_of(product: Product, form: IntegerForm) -> Activations:
    """How the input of a product is scaled."""
    return "rows" if chosen(product.name, form.rows) else form.activations


def smoothing_of(
    products: list[Product], form: IntegerForm, ranges: ActivationRanges | None
) -> dict[str, NDArray[np.float32]]:
    """Smoothing factors per activation that enters quantized products."""
    if form.smoothing is None or ranges is None:
        return {}
    weights: dict[str, list[NDArray[np.float32]]] = {}
    for product in products:
        weights.setdefault(product.source, []).append(product.weight)
    return {
        name: smoothing_factors(ranges.channel_maxima(name), read, form.smoothing)
        for name, read in weights.items()
    }


def _opset(model: Any) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return int(versions[0])


def _replace(
    model: Any, replacements: dict[str, list[Any]], values: dict[str, NDArray[Any]]
) -> None:
    """Put the new nodes where the old ones were, and drop the weights nobody reads any more."""
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
