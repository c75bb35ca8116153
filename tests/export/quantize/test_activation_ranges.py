"""Calibration measures every token once, and no padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_graphs import Floats, write_graph
from onnx import TensorProto, helper

from factory.errors import ParityError
from factory.export.quantize.activation_ranges import measure_activations
from factory.models.encoding import EncodedRows

TABLE = np.random.default_rng(3).normal(size=(20, 6)).astype("f4")
ROWS = [[1, 2, 3], [4], [19, 19, 5, 6, 7, 1]]


def encoded(rows: list[list[int]]) -> EncodedRows:
    ids = [np.array(row, dtype=np.int32) for row in rows]
    return EncodedRows(ids, [np.zeros_like(row) for row in ids], pad_id=0)


def table_and_product(file: Path, table: Floats) -> Path:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["h"], name="/words"),
        helper.make_node("MatMul", ["h", "w"], ["logits"], name="/dense"),
    ]
    weights = {"table": table, "w": np.ones((table.shape[1], 2), dtype=np.float32)}
    outputs = ("logits",)
    return write_graph(file, nodes, {"input_ids": TensorProto.INT64}, weights, outputs=outputs)


def test_statistics_are_those_of_the_tokens(tmp_path: Path) -> None:
    table = TABLE.copy()
    table[0] = 1000  # padding, which no row may see
    source = table_and_product(tmp_path / "f.onnx", table)
    (found,) = measure_activations(source, encoded(ROWS)).values()
    tokens = table[[identity for row in ROWS for identity in row]]
    np.testing.assert_array_equal(found.low, tokens.min(axis=0))
    np.testing.assert_array_equal(found.high, tokens.max(axis=0))
    np.testing.assert_allclose(found.moments, tokens.T @ tokens / len(tokens), rtol=1e-5)
    np.testing.assert_array_equal(found.maxima(), np.abs(tokens).max(axis=0))
    factors = np.arange(1, 7, dtype=np.float32)
    divided = found.divided(factors)
    np.testing.assert_allclose(divided.low, (tokens / factors).min(axis=0), rtol=1e-6)
    np.testing.assert_allclose(divided.high, (tokens / factors).max(axis=0), rtol=1e-6)
    moments = (tokens / factors).T @ (tokens / factors) / len(tokens)
    np.testing.assert_allclose(divided.moments, moments, rtol=1e-4)


def test_no_rows_and_no_numbers_are_refused(tmp_path: Path) -> None:
    source: Any = table_and_product(tmp_path / "f.onnx", TABLE)
    with pytest.raises(ParityError, match="no calibration rows"):
        measure_activations(source, encoded([]))
    broken = TABLE.copy()
    broken[4, 2] = np.nan
    source = table_and_product(tmp_path / "f.onnx", broken)
    with pytest.raises(ParityError, match="h is not finite"):
        measure_activations(source, encoded(ROWS))
