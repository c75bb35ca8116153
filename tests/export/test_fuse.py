"""Fused and float16 files: the student's logits, and refusal of graphs that are not fused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.tiny_models import open_tiny, save_tiny, tiny_bert, tiny_split
from onnx import numpy_helper

from factory.errors import ParityError
from factory.export.fuse import write_fused
from factory.export.onnx import export_onnx
from factory.export.parity import open_session, session_logits
from factory.models.encoding import encode_inputs

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def undeclared_domains(file: Path) -> set[str]:
    model = onnx.load(file)
    return {node.domain for node in model.graph.node} - {
        entry.domain for entry in model.opset_import
    }


def dev_logits(file: Path, student: Any) -> Any:
    inputs = tiny_split("dev", 90, seed=21).inputs()
    return session_logits(open_session(file), encode_inputs(student.tokenizer, inputs, 24), 8)


@pytest.mark.parametrize(("first_token", "attentions"), [(True, 2), (False, 3)])
def test_every_layer_but_a_shortened_one_is_fused(
    tmp_path: Path, exported: Any, first_token: bool, attentions: int
) -> None:
    source, target = exported.file, tmp_path / "fused.onnx"
    if not first_token:
        source = tmp_path / "model.onnx"
        export_onnx(exported.folder, source, 17, first_token)
    facts = write_fused(source, target, exported.student)
    assert facts["fused"] == {
        "EmbedLayerNormalization": 1,
        "Attention": attentions,
        "SkipLayerNormalization": 6,
        "BiasGelu": 3,
    }
    assert max(facts["largest_difference"].values()) < 1e-4
    assert undeclared_domains(target) == set()
    onnx.shape_inference.infer_shapes(onnx.load(target), check_type=True, strict_mode=False)
    expected = exported.student.logits(tiny_split("dev", 90, seed=21).inputs())
    np.testing.assert_allclose(dev_logits(target, exported.student), expected, atol=1e-4)


def test_float16_halves_the_weights_and_keeps_the_interface(tmp_path: Path, exported: Any) -> None:
    target = tmp_path / "float16.onnx"
    facts = write_fused(exported.file, target, exported.student, half=True)
    graph = onnx.load(target).graph
    assert graph.output[0].type.tensor_type.elem_type == FLOAT
    matrices = [tensor for tensor in graph.initializer if len(tensor.dims) >= 2]
    assert {tensor.data_type for tensor in matrices} == {FLOAT16}
    assert sum(tensor.data_type == FLOAT16 for tensor in graph.initializer) > 20
    assert undeclared_domains(target) == set()
    worst = max(facts["largest_difference"].values())
    assert 1e-5 < worst < 0.03  # another arithmetic, and near
    plain = dev_logits(exported.file, exported.student)
    assert (dev_logits(target, exported.student).argmax(1) == plain.argmax(1)).mean() >= 0.98


def test_another_model_in_the_file_is_rejected(tmp_path: Path, exported: Any) -> None:
    """A form is compared with the student, not with its source file."""
    model = onnx.load(exported.file)
    (bias,) = [node.input[2] for node in model.graph.node if "logits" in node.output]
    (tensor,) = [entry for entry in model.graph.initializer if entry.name == bias]
    changed = numpy_helper.to_array(tensor) + np.float32(0.1)
    tensor.CopyFrom(numpy_helper.from_array(changed, bias))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ParityError, match=r"a logit differs from torch by 0\.1"):
        write_fused(tmp_path / "model.onnx", tmp_path / "out.onnx", exported.student, half=True)


def test_a_graph_that_does_not_fuse_is_rejected(tmp_path: Path, exported: Any) -> None:
    """The file of a one-layer student has too few layers for one of three."""
    folder = save_tiny(tiny_bert(num_hidden_layers=1), tmp_path / "small")
    export_onnx(folder, tmp_path / "model.onnx", 17)
    with pytest.raises(ParityError, match=r"did not recognize .* 0 Attention, not 2; 2 Skip"):
        write_fused(tmp_path / "model.onnx", tmp_path / "out.onnx", exported.student)
    assert not (tmp_path / "out.onnx").exists()
    facts = write_fused(tmp_path / "model.onnx", tmp_path / "out.onnx", open_tiny(folder))
    assert facts["fused"]["Attention"] == 0
