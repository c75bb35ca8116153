"""Calibration sees every token once, no padding, and cuts ranges as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_graphs import Floats, write_graph

from factory.errors import ParityError
from factory.export.quantize.calibration import (
    ActivationStatistics,
    activation_ranges,
    measure_activations,
)
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
    assert found.counts.sum() == tokens.size
    ranges = activation_ranges({"h": found})
    assert ranges.ranges["h"] == (float(tokens.min()), float(tokens.max()))
    np.testing.assert_array_equal(ranges.channel_maxima("h"), np.abs(tokens).max(axis=0))
    factors = np.arange(1, 7, dtype=np.float32)
    low, high = ranges.divided("h", factors)
    assert low == pytest.approx((tokens / factors).min(), rel=1e-6)
    assert high == pytest.approx((tokens / factors).max(), rel=1e-6)


def statistics_of(values: Floats) -> ActivationStatistics:
    counts = np.histogram(values, 2048)[0]
    low, high = np.array([values.min()]), np.array([values.max()])
    return ActivationStatistics(low, high, np.eye(1, dtype=np.float32), counts)


def test_percentile_leaves_the_same_share_out_on_both_sides() -> None:
    values = np.linspace(-1, 3, 100_001).astype("f4")
    ranges = activation_ranges({"x": statistics_of(values)}, "percentile", 90)
    low, high = ranges.ranges["x"]
    assert low == pytest.approx(-0.8, abs=0.003)  # 5 % of [-1, 3]
    assert high == pytest.approx(2.8, abs=0.003)


def test_entropy_cuts_far_outliers_and_keeps_a_flat_distribution() -> None:
    random = np.random.default_rng(0)
    flat = random.uniform(-1, 1, 200_000).astype("f4")
    peaked = np.concatenate([random.normal(size=200_000), [-60.0, 60.0]]).astype("f4")
    found = activation_ranges({"f": statistics_of(flat), "p": statistics_of(peaked)}, "entropy")
    low, high = found.ranges["f"]
    assert low < -0.95
    assert high > 0.95
    low, high = found.ranges["p"]
    assert -30 < low < -2.5
    assert 2.5 < high < 30


def test_no_rows_and_no_numbers_are_refused(tmp_path: Path) -> None:
    source: Any = table_and_product(tmp_path / "f.onnx", TABLE)
    with pytest.raises(ParityError, match="no calibration rows"):
        measure_activations(source, encoded([]))
    broken = TABLE.copy()
    broken[4, 2] = np.nan
    source = table_and_product(tmp_path / "f.onnx", broken)
    with pytest.raises(ParityError, match="h is not finite"):
        measure_activations(source, encoded(ROWS))
