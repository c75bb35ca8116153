"""The exported graph: what a bundle promises of it, and refusal of every other graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from helpers.tiny_models import open_tiny, save_tiny, tiny_bert

from factory.errors import ParityError
from factory.export.onnx import check_interface, export_onnx
from factory.export.parity import check_parity

INT32 = onnx.TensorProto.INT32


def test_one_valid_file_with_the_interface_of_a_bundle(exported: Any) -> None:
    check_interface(exported.file)
    assert [path.name for path in exported.file.parent.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(exported.file, full_check=True)


@pytest.mark.parametrize("opset", [14, 20])
def test_both_ends_of_the_opset_range(tmp_path: Path, exported: Any, opset: int) -> None:
    file, scratch = tmp_path / "model.onnx", tmp_path / "export.tmp"
    scratch.mkdir()  # what a killed export left is no obstacle
    for left in (file, scratch / "model.onnx"):
        left.write_bytes(b"half")
    export_onnx(exported.folder, file, opset)
    (default,) = [
        entry for entry in onnx.load(file).opset_import if entry.domain in ("", "ai.onnx")
    ]
    assert default.version == opset
    assert not scratch.exists()
    check_parity(file, exported.student, atol=1e-4)


def test_dropout_of_the_student_is_not_exported(tmp_path: Path) -> None:
    model = tiny_bert(
        num_hidden_layers=1, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5
    )
    folder = save_tiny(model.train(), tmp_path / "student")
    export_onnx(folder, tmp_path / "model.onnx", opset=17)
    operations = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert not {name for name in operations if name.startswith(("Dropout", "Random"))}
    check_parity(tmp_path / "model.onnx", open_tiny(folder), atol=1e-4)


def test_weights_in_another_file_are_refused(tmp_path: Path, exported: Any) -> None:
    onnx.save(
        onnx.load(exported.file),
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    with pytest.raises(ParityError, match=r"weight \S+ is stored in another file"):
        check_interface(tmp_path / "model.onnx")


def rename_output(graph: Any) -> None:
    for node in graph.node:
        node.output[:] = ["scores" if name == "logits" else name for name in node.output]
    graph.output[0].name = "scores"


def drop_token_types(graph: Any) -> None:
    graph.input.remove(graph.input[[value.name for value in graph.input].index("token_type_ids")])


def narrow_input(graph: Any) -> None:
    graph.input[0].type.tensor_type.elem_type = INT32


def fix_length(graph: Any) -> None:
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 128


def fix_batch_of_output(graph: Any) -> None:
    graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_output, r"inputs and outputs are \[.*'scores'.*not \[.*'logits'"),
        (drop_token_types, r"inputs and outputs are .*, not \[.*'token_type_ids'"),
        (narrow_input, "has element type 6, not 7"),
        (fix_length, r"has axes \['batch_size', '128'\].* \['batch_size', 'sequence_length'\]"),
        (fix_batch_of_output, r"logits has axes .*, which must begin with \['batch_size'\]"),
    ],
)
def test_another_interface_is_refused(
    tmp_path: Path, exported: Any, change: Callable[[Any], None], message: str
) -> None:
    model = onnx.load(exported.file)
    change(model.graph)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ParityError, match=message) as caught:
        check_interface(tmp_path / "model.onnx")
    assert str(tmp_path / "model.onnx") in str(caught.value)


def test_all_differences_are_reported_together(tmp_path: Path, exported: Any) -> None:
    model = onnx.load(exported.file)
    narrow_input(model.graph)
    fix_batch_of_output(model.graph)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ParityError) as caught:
        check_interface(tmp_path / "model.onnx")
    assert "element type" in str(caught.value)
    assert "logits has axes" in str(caught.value)
