"""Quantization: everything large becomes int8, and a file where it did not is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_models import VOCABULARY, tiny_split

from factory.errors import ParityError
from factory.export.dynamic import check_quantized, quantize_int8
from factory.export.onnx import export_onnx
from factory.export.session import open_session, session_logits
from factory.models.encoding import encode_inputs

INT8, UINT8 = onnx.TensorProto.INT8, onnx.TensorProto.UINT8


def initializers(file: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in onnx.load(file).graph.initializer}


def operations(file: Path) -> list[str]:
    return [node.op_type for node in onnx.load(file).graph.node]


def float_products(file: Path) -> tuple[int, int]:
    """Products left in float: with a weight, and of two activations (scores and context)."""
    weights = set(initializers(file))
    nodes = [node for node in onnx.load(file).graph.node if node.op_type in ("MatMul", "Gemm")]
    with_weight = sum(bool(weights.intersection(node.input)) for node in nodes)
    return with_weight, len(nodes) - with_weight


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, exported: Any) -> Path:
    """The tiny student in int8, one scale per channel."""
    file = tmp_path_factory.mktemp("quantized") / "model.onnx"
    quantize_int8(exported.file, file, per_channel=True)
    return file


def test_products_and_tables_are_integers(exported: Any, quantized: Path) -> None:
    # 3 layers of query, key, value, output and two feed-forward products; pooler, classifier
    assert float_products(exported.file) == (3 * 6 + 2, 3 * 2)
    assert float_products(quantized) == (0, 3 * 2)
    assert operations(quantized).count("MatMulInteger") == 3 * 6 + 2
    shapes = ([len(VOCABULARY), 24], [32, 24])  # words, positions
    tables = [t for t in initializers(quantized).values() if list(t.dims) in shapes]
    assert len(tables) == 2
    assert {tensor.data_type for tensor in tables} == {UINT8}
    weights = [t for t in initializers(quantized).values() if list(t.dims) == [24, 48]]
    assert [tensor.data_type for tensor in weights] == [INT8] * 3


def test_facts_are_those_of_the_file(exported: Any, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    facts = quantize_int8(exported.file, file, per_channel=False)
    assert facts == {
        "matmul_integer": operations(file).count("MatMulInteger"),
        "size_bytes": file.stat().st_size,
    }


def scale_sizes(file: Path) -> set[int]:
    """How many scales the feed-forward weights (24 to 48) have."""
    found = initializers(file)
    return {
        numpy_helper.to_array(found[name.replace("_quantized", "_scale")]).size
        for name, tensor in found.items()
        if name.endswith("_quantized") and list(tensor.dims) == [24, 48]
    }


def test_per_channel_gives_every_output_its_scale(
    exported: Any, quantized: Path, tmp_path: Path
) -> None:
    quantize_int8(exported.file, tmp_path / "per_tensor.onnx", per_channel=False)
    assert scale_sizes(quantized) == {48}
    assert scale_sizes(tmp_path / "per_tensor.onnx") == {1}


def test_predictions_stay_close(exported: Any, quantized: Path) -> None:
    dev = tiny_split("dev", 90, seed=31)
    rows = encode_inputs(exported.student.tokenizer, dev.inputs(), exported.student.max_length)
    found = session_logits(open_session(quantized), rows)
    expected = exported.student.logits(dev.inputs())
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95
    assert 0 < np.abs(found - expected).mean() < 0.2


def test_the_source_is_left_alone(exported: Any, tmp_path: Path) -> None:
    before = exported.file.read_bytes()
    quantize_int8(exported.file, tmp_path / "model.onnx", per_channel=True)
    assert exported.file.read_bytes() == before
    assert [path.name for path in exported.file.parent.iterdir()] == ["model.onnx"]


def test_the_root_logger_keeps_its_level(exported: Any, tmp_path: Path) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        root.setLevel(logging.INFO)
        quantize_int8(exported.file, tmp_path / "model.onnx", per_channel=True)
        assert root.level == logging.INFO
    finally:
        root.setLevel(before)


def test_an_unquantized_file_is_refused(exported: Any) -> None:
    with pytest.raises(ParityError, match="not quantized as asked: 0 integer products"):
        check_quantized(exported.file)


def test_one_large_float_weight_left_is_refused_by_name(quantized: Path, tmp_path: Path) -> None:
    model = onnx.load(quantized)
    for name, shape in (("small", (100, 100)), ("large", (101, 100))):
        table = np.zeros(shape, dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(table, name))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ParityError, match=r"float weights left: large \[101, 100\]$"):
        check_quantized(tmp_path / "model.onnx")


def test_the_shipped_shape_fits_in_15_megabytes(tmp_path: Path) -> None:
    """4 layers, 312 wide, 12 heads, vocabulary 30,522: the size users are told."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=312, num_hidden_layers=4, num_attention_heads=12, intermediate_size=1200
    )
    assert config.vocab_size == 30522
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(14.35e6, rel=1e-3)
    model.save_pretrained(tmp_path / "student")
    export_onnx(tmp_path / "student", tmp_path / "fp32.onnx", opset=17)
    facts = quantize_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", per_channel=True)
    assert 14e6 < facts["size_bytes"] < 15.5e6
    assert (tmp_path / "fp32.onnx").stat().st_size > 57e6
    assert float_products(tmp_path / "int8.onnx") == (0, 4 * 2)
    assert facts["matmul_integer"] == 4 * 6 + 2
    (table,) = [
        t for t in initializers(tmp_path / "int8.onnx").values() if list(t.dims) == [30522, 312]
    ]
    assert table.data_type == UINT8  # quantize_dynamic stores tables unsigned; a byte a number
