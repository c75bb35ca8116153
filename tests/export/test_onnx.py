"""The exported graph: what a bundle promises of it, and refusal of every other graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.tiny_models import open_tiny, save_tiny, tiny_bert

from factory.errors import ParityError
from factory.export.onnx import check_interface, export_onnx
from factory.export.parity import check_parity

INT64, INT32 = onnx.TensorProto.INT64, onnx.TensorProto.INT32


def described(values: Any) -> dict[str, tuple[int, list[str | int]]]:
    """Type and axes of graph inputs or outputs by name; free axes by name, fixed ones by size."""
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


def test_names_types_and_axes(exported: Any) -> None:
    graph = onnx.load(exported.file).graph
    assert described(graph.input) == {
        name: (INT64, ["batch_size", "sequence_length"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    ((name, (kind, axes)),) = described(graph.output).items()
    assert (name, kind, axes[0]) == ("logits", onnx.TensorProto.FLOAT, "batch_size")
    assert len(axes) == 2


def test_one_file_and_nothing_else(exported: Any) -> None:
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
        (fix_length, r"has axes \['batch_size', '128'\], not \['batch_size', 'sequence_length'\]"),
        (fix_batch_of_output, r"logits has axes .*, the first must be batch_size"),
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


def test_all_differences_are_told_together(tmp_path: Path, exported: Any) -> None:
    model = onnx.load(exported.file)
    narrow_input(model.graph)
    fix_batch_of_output(model.graph)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ParityError) as caught:
        check_interface(tmp_path / "model.onnx")
    assert "element type" in str(caught.value)
    assert "the first must be batch_size" in str(caught.value)


@pytest.mark.slow
def test_torchs_own_exporter_agrees(tmp_path: Path, exported: Any) -> None:
    """A second opinion: the graph of torch's newer exporter gives the same logits."""
    pytest.importorskip("onnxscript", reason="torch's newer exporter needs onnxscript")
    import torch

    from factory.export.parity import open_session, run_session
    from factory.models.encoding import PaddedRows

    random = np.random.default_rng(5)
    shape = (3, 17)
    batch = PaddedRows(
        random.integers(0, 90, shape), random.integers(0, 2, shape), np.ones(shape, dtype=np.int64)
    )
    batch.attention_mask[1, 9:] = 0
    names = ("input_ids", "attention_mask", "token_type_ids")
    example = tuple(torch.from_numpy(getattr(batch, name)) for name in names)
    free = {0: torch.export.Dim("batch_size"), 1: torch.export.Dim("sequence_length", max=32)}
    program = torch.onnx.export(
        exported.student.model,
        example,
        dynamo=True,
        external_data=False,
        input_names=names,
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(names, free),
    )
    assert program is not None
    program.save(tmp_path / "second.onnx")
    first = run_session(open_session(exported.file), batch)
    second = run_session(open_session(tmp_path / "second.onnx"), batch)
    np.testing.assert_allclose(first, second, atol=1e-4)
