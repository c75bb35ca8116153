"""The forms of an exported student, one file each, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from factory.data.dataset import Split
from factory.export.dynamic import quantize_int8
from factory.export.fuse import write_float16, write_fused
from factory.export.quantize.calibration import (
    ActivationRanges,
    activation_ranges,
    measure_activations,
)
from factory.export.quantize.form import SMALL_WEIGHT, IntegerForm, find_products
from factory.export.quantize.sensitivity import leave_one_out
from factory.export.quantize.write import write_integer
from factory.models.classifier import TorchClassifier
from factory.models.encoding import EncodedRows, encode_inputs
from factory.recipe.export import SEVEN_BIT_HARDWARE, Hardware, QuantizeSettings, VariantName

# How many products "int8-careful" keeps in float, found on so many of the calibration rows.
PRODUCTS_KEPT = 3
ROWS_FOR_SEARCH = 64


def write_variants(
    directory: Path,
    source: Path,
    names: Sequence[VariantName],
    settings: QuantizeSettings,
    hardware: Hardware,
    student: TorchClassifier,
    train: Split,
) -> dict[str, Any]:
    """Write `NAME.onnx` for each variant, from the plain fp32 file.

    Args:
        hardware: that the files are for; it decides how many bits a weight can have.
        student: whose tokenizer reads the calibration rows.
        train: where the calibration rows come from; dev and test measure.

    Raises:
        ParityError: a file is not what its name says.
    """
    rows = calibration_rows(student, train, settings.calibration_rows)
    layers: int = student.model.config.num_hidden_layers
    ranges: ActivationRanges | None = None
    facts: dict[str, Any] = {}
    seven_bits = hardware in SEVEN_BIT_HARDWARE
    for name in names:
        target = directory / f"{name}.onnx"
        if name == "int8":
            facts[name] = quantize_int8(source, target, settings.per_channel, seven_bits)
        elif name == "fp32-fused":
            facts[name] = write_fused(source, target, student)
        elif name == "fp16":
            facts[name] = write_float16(source, target, student)
        else:
            form = integer_form(name, layers, seven_bits, settings.smoothing)
            if ranges is None:
                ranges = activation_ranges(measure_activations(source, rows), settings.calibration)
            if name == "int8-careful":
                some = calibration_rows(student, train, ROWS_FOR_SEARCH)
                form = _careful(source, form, some)
            facts[name] = write_integer(source, target, form, ranges)
    return facts


def integer_form(name: VariantName, layers: int, seven_bits: bool, smoothing: float) -> IntegerForm:
    """What the name of an integer variant stands for; the measurements are in docs/log.md.

    The first rows of an embedding table hold the frequent pieces of a published vocabulary: they
    keep 8 bits where the rest has 4.
    """
    smoothed = smoothing or None
    if name == "int8-embeddings":
        return IntegerForm("rows", keep_float=("*MatMul", "*Gemm"))
    if name == "int4":
        return IntegerForm(
            "static",
            compensated=True,
            smoothing=smoothed,
            weight_bits=4,
            embeddings="int4",
            precise_rows=6144,
            embedding_block=512,
            reduced_range=seven_bits,
        )
    rows = IntegerForm(
        "rows",
        compensated=True,
        embeddings="int4",
        precise_rows=16_384,
        reduced_range=seven_bits,
    )
    if name == "int8-static":
        return replace(rows, activations="static", smoothing=smoothed)
    if name == "int8-mixed":
        # what comes out of GELU varies most from token to token
        outputs = tuple(f"/bert/encoder/layer.{n}/output/dense/MatMul" for n in range(layers))
        return replace(rows, activations="static", rows=outputs)
    return rows


def calibration_rows(student: TorchClassifier, train: Split, count: int) -> EncodedRows:
    """Rows spread evenly over the training split, as the student reads them."""
    inputs = train.inputs()
    chosen = np.linspace(0, len(inputs) - 1, min(count, len(inputs))).astype(int)
    return encode_inputs(student.tokenizer, [inputs[n] for n in chosen], student.max_length)


def _careful(source: Path, form: IntegerForm, rows: EncodedRows) -> IntegerForm:
    """The form with the products in float that cost it most on some calibration rows."""
    import onnx

    # an embedding table in float would be most of the file
    names = [
        product.name
        for product in find_products(onnx.load(source).graph)
        if product.weight.size > SMALL_WEIGHT
    ]
    quick = replace(form, compensated=False)
    worst = leave_one_out(source, quick, rows, names=names)[:PRODUCTS_KEPT]
    return replace(form, keep_float=tuple(hurt.name for hurt in worst))
