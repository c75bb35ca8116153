"""Integer forms of a whole student: close to fp32, and the same beside any neighbour."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from factory.export.onnx import check_interface, export_onnx
from factory.export.quantize.calibration import (
    ActivationRanges,
    activation_ranges,
    measure_activations,
)
from factory.export.quantize.form import IntegerForm, find_items
from factory.export.quantize.sensitivity import compare_logits, leave_one_out
from factory.export.quantize.write import write_integer
from factory.export.session import open_session, run_session, session_logits
from factory.models.encoding import PaddedRows

OUT = "/bert/encoder/layer.?/output/dense/MatMul"
CALIBRATED = {"smoothing": 0.7, "compensated": True}
FORMS: dict[str, IntegerForm] = {
    "rows": IntegerForm("rows"),
    "static": IntegerForm("static"),
    "static smoothed": IntegerForm("static", **CALIBRATED),  # type: ignore[arg-type]
    "static, FFN outputs by rows": IntegerForm("static", rows=(OUT,), compensated=True),
    "4-bit": IntegerForm("rows", weight_bits=4, embeddings="int4", precise_rows=100),
    "blocks": IntegerForm("blocks"),
}


@dataclass(frozen=True, slots=True)
class Wide:
    """A student wide enough for its weights to be quantized, and its calibration."""

    file: Path
    rows: Any
    ranges: ActivationRanges


def random_rows(seed: int, lengths: list[int]) -> Any:
    from factory.models.encoding import EncodedRows

    random = np.random.default_rng(seed)
    ids = [random.integers(0, 300, length).astype(np.int32) for length in lengths]
    return EncodedRows(ids, [np.zeros_like(row) for row in ids], pad_id=0)


@pytest.fixture(scope="module", params=[1, 5])
def wide(tmp_path_factory: pytest.TempPathFactory, request: Any) -> Wide:
    """Two layers, 112 wide; one output is a regression, five are classes or labels."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=300,
        hidden_size=112,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=240,
        max_position_embeddings=128,
        num_labels=request.param,
        initializer_range=0.1,
    )
    folder = tmp_path_factory.mktemp("wide")
    BertForSequenceClassification(config).save_pretrained(folder / "model")
    export_onnx(folder / "model", folder / "fp32.onnx", opset=17)
    rows = random_rows(0, [5, 9, 3, 30, 12, 7, 21, 2] * 3)
    ranges = activation_ranges(measure_activations(folder / "fp32.onnx", rows))
    return Wide(folder / "fp32.onnx", rows, ranges)


def beside_neighbours(file: Path) -> list[NDArray[np.float32]]:
    """Logits of a text alone, beside extreme ones of its length, and padded beside longer ones."""
    random = np.random.default_rng(5)
    session = open_session(file, threads=1)
    alone = random.integers(0, 299, (1, 8))
    found = [run_session(session, PaddedRows(alone, np.zeros_like(alone), np.ones_like(alone)))[0]]
    for length in (8, 60):
        ids = np.full((3, length), 299)  # made extreme in the table
        ids[2] = random.integers(0, 299, length)
        mask = np.ones_like(ids)
        ids[0, :8], ids[0, 8:], mask[0, 8:] = alone, 0, 0
        found.append(run_session(session, PaddedRows(ids, np.zeros_like(ids), mask))[0])
    return found


def outlier(file: Path, target: Path) -> Path:
    """The same student with one token that is a hundred times as large in one channel."""
    from onnx import numpy_helper

    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if list(tensor.dims) == [300, 112]:
            table = numpy_helper.to_array(tensor).copy()
            table[299, 0] = 100
            tensor.CopyFrom(numpy_helper.from_array(table, tensor.name))
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("name", FORMS)
def test_forms_are_close_and_independent_of_neighbours(
    wide: Wide, tmp_path: Path, name: str
) -> None:
    form = FORMS[name]
    file = tmp_path / "q.onnx"
    facts = write_integer(wide.file, file, form, wide.ranges)
    check_interface(file)
    assert facts["neighbour_independent"]
    assert sum(facts["products"].values()) == 2 * 6 + 1  # the classifier is small
    assert facts["left_in_float"].keys() == {
        "/classifier/Gemm",
        "/bert/embeddings/token_type_embeddings/Gather",
    }
    expected = session_logits(open_session(wide.file, threads=1), wide.rows)
    close = compare_logits(session_logits(open_session(file, threads=1), wide.rows), expected)
    spread = float(expected.std())
    assert 0 < close.mean_difference < (0.6 if form.weight_bits == 4 else 0.06) * spread
    write_integer(outlier(wide.file, tmp_path / "outlier.onnx"), file, form, wide.ranges)
    alone, beside, padded = beside_neighbours(file)
    np.testing.assert_allclose(beside, alone, atol=1e-5, rtol=0)
    # padding lets attention sum in another order, which on some processors moves a number over
    # the edge between two integers; within 1e-5 where none is
    np.testing.assert_allclose(padded, alone, atol=5e-4, rtol=0)


def test_one_scale_for_all_depends_on_the_neighbour(wide: Wide, tmp_path: Path) -> None:
    file = tmp_path / "q.onnx"
    source = outlier(wide.file, tmp_path / "outlier.onnx")
    facts = write_integer(source, file, IntegerForm("dynamic"))
    assert not facts["neighbour_independent"]
    alone, beside, padded = beside_neighbours(file)
    assert np.abs(beside - alone).max() > 1e-3
    assert np.abs(padded - alone).max() > 1e-3


def test_the_form_without_the_product_that_hurts_comes_closest(wide: Wide, tmp_path: Path) -> None:
    """With 4 bits in one product only, leaving out that one hurts least."""
    names = [f"/bert/encoder/layer.{n}/output/dense/MatMul" for n in (0, 1)]
    every = find_items(onnx.load(wide.file).graph)
    keep = tuple(item.name for item in every if item.name not in names)
    form = IntegerForm("rows", weight_bits=4, keep_float=keep)
    found = leave_one_out(wide.file, form, wide.rows)
    assert sorted(hurt.name for hurt in found) == names
    assert found[0].without.divergence <= found[1].without.divergence
    both = tmp_path / "both.onnx"
    write_integer(wide.file, both, replace(form, keep_float=(*keep, found[0].name)))
    expected = session_logits(open_session(wide.file, threads=1), wide.rows)
    again = compare_logits(session_logits(open_session(both, threads=1), wide.rows), expected)
    assert again == found[0].without


def test_closeness_by_hand() -> None:
    expected = np.array([[0.0, np.log(3.0)], [2.0, 0.0]], dtype=np.float32)
    found = np.array([[0.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    close = compare_logits(found, expected)
    first = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    p, q = np.exp(2) / (np.exp(2) + 1), 1 / (1 + np.e)
    second = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert close.agreement == 0.0
    assert close.divergence == pytest.approx((first + second) / 2, rel=1e-6)
    assert close.mean_difference == pytest.approx((np.log(3) + 2 + 1) / 4)
    assert close.largest_difference == 2.0
    one = compare_logits(np.array([[1.0], [-1.0]], "f4"), np.array([[2.0], [1.0]], "f4"))
    assert (one.agreement, one.divergence) == (0.5, 2.5)
