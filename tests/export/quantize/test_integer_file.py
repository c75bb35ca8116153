"""Integer files against a plain recomputation of their arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.small_graphs import (
    one_product,
    one_table,
    operations,
    run_graph,
    values_of,
    write_graph,
)
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from factory.errors import ParityError
from factory.export.quantize.activation_ranges import ActivationStatistics
from factory.export.quantize.form import IntegerForm, find_products, find_tables
from factory.export.quantize.write import check_stored, write_integer

Floats = NDArray[np.float32]
RANDOM = np.random.default_rng(7)
INPUTS, OUTPUTS = 104, 120  # not a multiple of a block
WEIGHT = (RANDOM.normal(size=(INPUTS, OUTPUTS)) * RANDOM.uniform(0.1, 3, OUTPUTS)).astype("f4")
BIAS = RANDOM.normal(size=OUTPUTS).astype("f4")
X = (RANDOM.normal(size=(2, 5, INPUTS)) * RANDOM.uniform(0.1, 2, (2, 5, 1))).astype("f4")
NAME = "/dense/MatMul"


def seen(x: Floats, name: str = "x") -> dict[str, ActivationStatistics]:
    """Statistics of x whose channels do not move together, so that rounding is to nearest."""
    flat = x.reshape(-1, x.shape[-1])
    moments = np.eye(x.shape[-1], dtype=np.float32)
    return {name: ActivationStatistics(flat.min(axis=0), flat.max(axis=0), moments)}


def moving_together(x: Floats) -> dict[str, ActivationStatistics]:
    """Statistics of x as calibration measures them."""
    flat = x.reshape(-1, x.shape[-1])
    moments = flat.T @ flat / np.float32(len(flat))
    return {"x": ActivationStatistics(flat.min(axis=0), flat.max(axis=0), moments)}


def whole_numbers(weight: Floats, largest: int = 127) -> tuple[Floats, Floats]:
    scale = np.abs(weight).max(axis=0) / np.float32(largest)
    return np.rint(weight / scale), scale


def close(found: Floats, expected: Floats) -> None:
    """Equal but for a rare number that rounds the other way at a half."""
    step = np.abs(expected).max() / 127
    assert np.abs(found - expected).max() < 0.1 * step


def test_static_products_are_those_of_the_rounded_numbers(tmp_path: Path) -> None:
    source = one_product(tmp_path / "fp32.onnx", WEIGHT, BIAS)
    ranges = seen(X)
    facts = write_integer(source, tmp_path / "q.onnx", IntegerForm("static"), ranges)
    low, high = float(X.min()), float(X.max())
    scale = (high - low) / 255
    zero = round(-low / scale)
    x = np.clip(np.rint(X / scale) + zero, 0, 255) - zero
    integers, scales = whole_numbers(WEIGHT)
    close(run_graph(tmp_path / "q.onnx", x=X), (x @ integers) * scale * scales + BIAS)
    assert operations(tmp_path / "q.onnx") == ["QuantizeLinear", "MatMulIntegerToFloat"]
    assert facts["products"] == 1
    assert facts["left_in_float"] == {}
    assert facts["size_bytes"] == (tmp_path / "q.onnx").stat().st_size < source.stat().st_size / 3


@pytest.mark.parametrize(("opset", "bias"), [(14, None), (18, BIAS)])
def test_rows_have_their_own_scale(tmp_path: Path, opset: int, bias: Floats | None) -> None:
    source = one_product(tmp_path / "fp32.onnx", WEIGHT, bias, opset)
    write_integer(source, tmp_path / "q.onnx", IntegerForm("rows"), seen(X))
    row_scale = np.abs(X).max(axis=-1, keepdims=True) / np.float32(127)
    integers, scales = whole_numbers(WEIGHT)
    expected = (np.rint(X / row_scale) @ integers) * row_scale * scales
    close(run_graph(tmp_path / "q.onnx", x=X), expected if bias is None else expected + bias)


def test_a_row_of_zeros_gives_the_bias(tmp_path: Path) -> None:
    source = one_product(tmp_path / "fp32.onnx", WEIGHT, BIAS)
    x = X.copy()
    x[0, 1] = 0
    for form in (IntegerForm("rows"), IntegerForm("static")):
        write_integer(source, tmp_path / "q.onnx", form, seen(x))
        np.testing.assert_allclose(run_graph(tmp_path / "q.onnx", x=x)[0, 1], BIAS, atol=1e-6)


def test_a_gemm_is_a_product_too(tmp_path: Path) -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["out"], name="/pooler/Gemm", transB=1)
    weights = {"w": np.ascontiguousarray(WEIGHT.T), "b": BIAS}
    source = write_graph(tmp_path / "f.onnx", [node], {"x": TensorProto.FLOAT}, weights)
    one_product(tmp_path / "g.onnx", WEIGHT, BIAS)
    for name in "fg":
        write_integer(
            tmp_path / f"{name}.onnx", tmp_path / f"{name}q.onnx", IntegerForm("rows"), seen(X)
        )
    expected = run_graph(tmp_path / "gq.onnx", x=X[0])
    np.testing.assert_allclose(run_graph(tmp_path / "fq.onnx", x=X[0]), expected, atol=1e-5)
    assert "Gemm" not in operations(tmp_path / "fq.onnx")
    assert find_products(onnx.load(source).graph)[0].bias == "b"


def test_a_gemm_with_factors_of_its_own_is_rejected(tmp_path: Path) -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["out"], name="/g", alpha=0.5)
    source = write_graph(tmp_path / "f.onnx", [node], {"x": TensorProto.FLOAT}, {"w": WEIGHT})
    with pytest.raises(ParityError, match=r"float weights left: w \[104, 120\]$"):
        write_integer(source, tmp_path / "q.onnx", IntegerForm("rows"), {})


def test_an_addition_that_is_no_bias_stays(tmp_path: Path) -> None:
    """The product added to itself, and a product that is an output as well."""
    dense = helper.make_node("MatMul", ["x", "w"], ["p"], name="/dense")
    weights = {"w": WEIGHT, "b": BIAS}
    for added, outputs in (("p", ("out",)), ("b", ("out", "p"))):
        addition = helper.make_node("Add", ["p", added], ["out"], name="/add")
        source = write_graph(
            tmp_path / "f.onnx",
            [dense, addition],
            {"x": TensorProto.FLOAT},
            weights,
            outputs=outputs,
        )
        write_integer(source, tmp_path / "q.onnx", IntegerForm("static"), seen(X))
        expected = run_graph(source, x=X)
        found = run_graph(tmp_path / "q.onnx", x=X)
        assert np.abs(found - expected).max() < 0.03 * np.ptp(expected)
        assert "Add" in operations(tmp_path / "q.onnx")


def test_products_of_one_input_share_its_integers(tmp_path: Path) -> None:
    names = ("query", "key", "value")
    nodes = [helper.make_node("MatMul", ["x", n], [f"{n}_out"], name=f"/{n}") for n in names]
    nodes.append(helper.make_node("Sum", [f"{n}_out" for n in names], ["out"], name="/sum"))
    weights = {n: np.roll(WEIGHT, i) for i, n in enumerate(names)}
    source = write_graph(tmp_path / "f.onnx", nodes, {"x": TensorProto.FLOAT}, weights)
    form = IntegerForm("static", smoothing=0.5)
    facts = write_integer(source, tmp_path / "q.onnx", form, seen(X))
    found = operations(tmp_path / "q.onnx")
    assert facts["products"] == 3
    assert found.count("QuantizeLinear") == 1
    assert found.count("MatMulIntegerToFloat") == 3
    expected = X @ sum(weights.values())
    assert np.abs(run_graph(tmp_path / "q.onnx", x=X) - expected).max() < 0.03 * np.ptp(expected)


def test_int8_tables_have_one_scale_per_row(tmp_path: Path) -> None:
    table = (RANDOM.normal(size=(150, 70)) * RANDOM.uniform(0.01, 5, (150, 1))).astype("f4")
    table[3] = 0
    source = one_table(tmp_path / "fp32.onnx", table)
    write_integer(source, tmp_path / "q.onnx", IntegerForm("rows"), {})
    ids = np.array([[0, 149, 3], [7, 7, 80]])
    scale = np.abs(table).max(axis=1, keepdims=True) / 127
    expected = np.rint(table / np.where(scale > 0, scale, 1)) * scale
    np.testing.assert_allclose(run_graph(tmp_path / "q.onnx", ids=ids), expected[ids], atol=1e-6)


@pytest.mark.parametrize("width", [70, 64])
def test_int4_tables_and_their_precise_rows(tmp_path: Path, width: int) -> None:
    table = RANDOM.normal(size=(200, width)).astype("f4")
    source = one_table(tmp_path / "fp32.onnx", table)
    ids = np.arange(200)[None]
    sizes, errors = [], []
    for precise in (0, 50, 1000):
        form = IntegerForm("rows", bits=4, precise_rows=precise)
        write_integer(source, tmp_path / "q.onnx", form, {})
        found = run_graph(tmp_path / "q.onnx", ids=ids)[0]
        errors.append(np.linalg.norm(found - table, axis=1) / np.linalg.norm(table, axis=1))
        sizes.append((tmp_path / "q.onnx").stat().st_size)
    coarse, some, every = errors
    assert coarse.min() > 0.04
    assert coarse.max() < 0.2
    assert some[:50].max() < 0.02
    np.testing.assert_array_equal(some[50:], coarse[50:])
    assert every.max() < 0.02
    assert sizes[0] < sizes[1] < sizes[2] < table.nbytes


@pytest.mark.parametrize(("seven_bits", "largest", "error"), [(False, 127, 0.12), (True, 63, 0.13)])
def test_stored_four_bit_weights_unpack_to_what_runs(
    tmp_path: Path, seven_bits: bool, largest: int, error: float
) -> None:
    source = one_product(tmp_path / "fp32.onnx", WEIGHT)
    form = IntegerForm("rows", bits=4, seven_bits=seven_bits)
    write_integer(source, tmp_path / "q.onnx", form, seen(X))
    values = values_of(tmp_path / "q.onnx")
    packed = values[f"{NAME}/nibbles"]
    assert packed.shape == (64, OUTPUTS)  # 104 inputs fill 4 blocks of 32, two to a byte
    unpacked = np.zeros((128, OUTPUTS))
    for row in range(128):
        for column in range(OUTPUTS):
            byte = int(packed[row % 64, column])
            level = (byte & 15 if row < 64 else byte >> 4) - 8
            unpacked[row, column] = level * values[f"{NAME}/multipliers"][row // 32, 0, column]
    assert np.abs(unpacked).max() <= largest
    weight = unpacked[:INPUTS] * values[f"{NAME}/scale"]
    assert np.linalg.norm(weight - WEIGHT) < error * np.linalg.norm(WEIGHT)
    row_scale = np.abs(X).max(axis=-1, keepdims=True) / 127
    close(run_graph(tmp_path / "q.onnx", x=X), np.rint(X / row_scale) @ weight * row_scale)


def test_smoothing_evens_out_the_channels(tmp_path: Path) -> None:
    """One channel a hundred times the others costs the others their levels, unless smoothed."""
    x = X.copy()
    x[..., 11] *= 100
    weight = WEIGHT.copy()
    weight[11] /= 100
    source = one_product(tmp_path / "fp32.onnx", weight, BIAS)
    expected = run_graph(source, x=x)
    errors = []
    for smoothing in (0.0, 0.5):
        form = IntegerForm("static", smoothing=smoothing)
        write_integer(source, tmp_path / "q.onnx", form, seen(x))
        errors.append(np.abs(run_graph(tmp_path / "q.onnx", x=x) - expected).mean())
    assert errors[1] < errors[0] / 5
    values = values_of(tmp_path / "q.onnx")
    maxima = np.abs(x).reshape(-1, INPUTS).max(axis=0)
    factors = np.sqrt(maxima / np.abs(weight).max(axis=1))
    np.testing.assert_allclose(values["x/smoothing"], 1 / factors, rtol=1e-5)


def test_compensation_keeps_the_product_closer(tmp_path: Path) -> None:
    """On inputs that move together the product's error falls though the weights' rises."""
    mixing = RANDOM.normal(size=(12, INPUTS))
    x = (RANDOM.normal(size=(400, 12)) @ mixing + 0.1 * RANDOM.normal(size=(400, INPUTS))).astype(
        "f4"
    )
    source = one_product(tmp_path / "fp32.onnx", WEIGHT)
    expected = x @ WEIGHT
    errors = []
    for statistics in (seen(x), moving_together(x)):
        write_integer(source, tmp_path / "q.onnx", IntegerForm("rows", bits=4), statistics)
        errors.append(np.linalg.norm(run_graph(tmp_path / "q.onnx", x=x) - expected))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("output", "labels", "quantized"),
    [("logits", 28, False), ("logits", 33, True), ("out", 28, True)],
)
def test_a_small_classifier_stays_in_float(
    tmp_path: Path, output: str, labels: int, quantized: bool
) -> None:
    """GoEmotions: 312 x 28 numbers; 10,000 are allowed. Other products are quantized."""
    weight = RANDOM.normal(size=(312, labels)).astype("f4")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"], name="/words"),
        helper.make_node("MatMul", ["x", "w"], [output], name="/classifier"),
    ]
    weights = {"table": RANDOM.normal(size=(24, 312)).astype("f4"), "w": weight}
    inputs = {"ids": TensorProto.INT64}
    source = write_graph(tmp_path / "f.onnx", nodes, inputs, weights, outputs=(output,))
    facts = write_integer(source, tmp_path / "q.onnx", IntegerForm("rows"), seen(weights["table"]))
    reasons = {} if quantized else {"/classifier": f"small classifier, 312 x {labels}"}
    assert facts["left_in_float"] == reasons
    assert (facts["tables"], facts["products"]) == (1, int(quantized))


def test_tables_that_stay_in_float(tmp_path: Path) -> None:
    """Token types have few rows; two 4-bit numbers of a row share a byte."""
    forms = (((23, 70), IntegerForm("rows")), ((200, 71), IntegerForm("rows", bits=4)))
    for shape, form in forms:
        source = one_table(tmp_path / "t.onnx", np.ones(shape, dtype=np.float32))
        with pytest.raises(ParityError, match="nothing is quantized"):
            write_integer(source, tmp_path / "q.onnx", form, {})


def damage(file: Path, name: str, index: tuple[int, ...], factor: float) -> None:
    """Multiply one number of one constant."""
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            value = numpy_helper.to_array(tensor).copy()
            value[index] *= value.dtype.type(factor)
            tensor.CopyFrom(numpy_helper.from_array(value, name))
    onnx.save(model, file)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("factor", [-1.0, 2.0, 0.25, float("nan")])
def test_one_broken_scale_is_found(tmp_path: Path, bits: Any, factor: float) -> None:
    """An outlier in the channel, which makes 8-bit rounding coarser, hides no broken scale."""
    weight = WEIGHT.copy()
    if bits == 8:
        weight[3, 17] = 40 * np.abs(weight[:, 17]).max()
    source = one_product(tmp_path / "fp32.onnx", weight)
    form = IntegerForm("rows", bits=bits, seven_bits=factor == 2)
    write_integer(source, tmp_path / "q.onnx", form, seen(X))
    damage(tmp_path / "q.onnx", f"{NAME}/scale", (17,), factor)
    with pytest.raises(ParityError, match=r"1 of 120 are far .* number 18 "):
        check_stored(tmp_path / "q.onnx", find_products(onnx.load(source).graph), [], {}, form)


@pytest.mark.parametrize("bits", [8, 4])
def test_one_broken_row_of_a_table_is_found(tmp_path: Path, bits: Any) -> None:
    table = RANDOM.normal(size=(150, 128)).astype("f4")
    source = one_table(tmp_path / "fp32.onnx", table)
    form = IntegerForm("rows", bits=bits, precise_rows=0)
    write_integer(source, tmp_path / "q.onnx", form, {})
    damage(tmp_path / "q.onnx", "/words/Gather/scale", (5, 0), 3)
    tables = find_tables(onnx.load(source).graph)
    with pytest.raises(ParityError, match=r"row of /words/Gather: 1 of 150 .* number 6 "):
        check_stored(tmp_path / "q.onnx", [], tables, {}, form)
