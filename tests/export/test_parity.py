"""Parity: a true export passes; every kind of wrong graph is caught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.tiny_models import (
    MAX_LENGTH,
    open_tiny,
    save_tiny,
    tiny_bert,
    tiny_multilabel,
    tiny_regression,
    tiny_split,
)
from onnx import numpy_helper

from factory.errors import ParityError
from factory.evaluation.thresholds import Thresholds
from factory.export import parity
from factory.export.onnx import export_onnx
from factory.export.parity import (
    check_agreement,
    check_parity,
    open_session,
    session_logits,
)
from factory.models.encoding import encode_inputs

# The tiny model reads 32 tokens, so the grid's longer lengths become 32.
GRID = {f"{batch}x{length}" for batch in (1, 2, 7) for length in (2, 3, 16, 32)}


def change_weight(model: Any, name: str, change: Callable[[Any], Any]) -> None:
    """Replace one initializer."""
    (tensor,) = [entry for entry in model.graph.initializer if entry.name == name]
    changed = change(numpy_helper.to_array(tensor).copy()).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(changed, name))


def classifier_names(model: Any) -> tuple[str, str]:
    """Weight and bias of the last linear layer: the node that makes the logits."""
    (node,) = [node for node in model.graph.node if "logits" in node.output]
    assert node.op_type == "Gemm"
    return node.input[1], node.input[2]


def saved(model: Any, tmp_path: Path) -> Path:
    onnx.save(model, tmp_path / "changed.onnx")
    return tmp_path / "changed.onnx"


def test_rows_come_back_in_their_order(exported: Any) -> None:
    inputs = tiny_split("dev", 21, seed=4).inputs()  # of different lengths: sorting moves them
    rows = encode_inputs(exported.student.tokenizer, inputs, MAX_LENGTH)
    assert list(rows.lengths) != sorted(rows.lengths)
    found = session_logits(open_session(exported.file), rows, 8)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exported.student.logits(inputs), atol=1e-4)


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_a_session_runs_on_the_cpu_with_the_threads_requested(exported: Any, threads: int) -> None:
    session = open_session(exported.file, threads)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == threads


def test_a_true_export_passes_on_the_whole_grid(exported: Any) -> None:
    differences = check_parity(exported.file, exported.student, atol=1e-4)
    assert set(differences) == GRID
    assert all(0 <= value < 1e-4 for value in differences.values())
    assert any(value > 0 for value in differences.values())  # two engines, not one compared twice


def test_parity_up_to_512_tokens(tmp_path: Path) -> None:
    model = tiny_bert(max_position_embeddings=512, num_hidden_layers=1)
    folder = save_tiny(model, tmp_path / "student")
    export_onnx(folder, tmp_path / "model.onnx", opset=17)
    differences = check_parity(tmp_path / "model.onnx", open_tiny(folder), atol=1e-5)
    lengths = (2, 3, 16, 61, 128, 512)
    assert set(differences) == {f"{batch}x{length}" for batch in (1, 2, 7) for length in lengths}


def test_noise_in_any_weight_is_caught(
    tmp_path: Path, exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "BATCH_SIZES", (3,))  # a part of the grid, for the time's sake
    monkeypatch.setattr(parity, "LENGTHS", (16,))
    names = [
        tensor.name
        for tensor in onnx.load(exported.file).graph.initializer
        # a key bias adds the same number to all scores of a query, which the softmax cancels
        if tensor.data_type == onnx.TensorProto.FLOAT
        and tensor.dims
        and not tensor.name.endswith("key.bias")
        and "layer.1." not in tensor.name
    ]
    assert len(names) > 30
    random = np.random.default_rng(0)
    missed = []
    for name in names:
        model = onnx.load(exported.file)
        change_weight(model, name, lambda value: value + 0.3 * random.normal(size=value.shape))
        try:
            check_parity(saved(model, tmp_path), exported.student, atol=1e-4)
            missed.append(name)
        except ParityError:
            pass
    assert missed == []


def test_atol_decides_and_the_message_names_the_cell(tmp_path: Path, exported: Any) -> None:
    model = onnx.load(exported.file)
    change_weight(model, classifier_names(model)[1], lambda bias: bias + 0.25)
    file = saved(model, tmp_path)
    differences = check_parity(file, exported.student, atol=0.26)
    assert max(differences.values()) == pytest.approx(0.25, abs=1e-4)
    message = r"changed\.onnx: at batch x length \dx\d+ a logit differs from torch by 0\.25, more "
    with pytest.raises(ParityError, match=rf"{message}than export\.atol = 0\.24"):
        check_parity(file, exported.student, atol=0.24)


def ignore_input(model: Any, name: str, constant: str) -> None:
    """Feed the nodes that read an input with zeros or ones of its shape instead."""
    for node in model.graph.node:
        node.input[:] = [f"{name}.{constant}" if entry == name else entry for entry in node.input]
    operation = "Equal" if constant == "ones" else "Less"
    make = onnx.helper.make_node
    model.graph.node.insert(0, make(operation, [name, name], [f"{name}.compared"]))
    model.graph.node.insert(
        1, make("Cast", [f"{name}.compared"], [f"{name}.{constant}"], to=onnx.TensorProto.INT64)
    )


@pytest.mark.parametrize(
    ("name", "constant"),
    [("token_type_ids", "zeros"), ("attention_mask", "ones"), ("input_ids", "zeros")],
)
def test_an_input_the_graph_ignores_is_caught(
    tmp_path: Path, exported: Any, name: str, constant: str
) -> None:
    model = onnx.load(exported.file)
    ignore_input(model, name, constant)
    with pytest.raises(ParityError, match="does not compute this model"):
        check_parity(saved(model, tmp_path), exported.student, atol=1e-4)


def test_another_number_of_outputs_is_caught(tmp_path: Path, exported: Any) -> None:
    student = open_tiny(save_tiny(tiny_bert(("a", "b")), tmp_path / "two"))
    with pytest.raises(ParityError, match=r"shape \(1, 3\), torch gives \(1, 2\)"):
        check_parity(exported.file, student, atol=1e-4)


@pytest.mark.parametrize("wrong", [5.0, np.nan])
def test_a_graph_that_is_wrong_only_at_the_last_position_is_caught(
    tmp_path: Path, exported: Any, wrong: float
) -> None:
    model = onnx.load(exported.file)
    tensors = [tensor for tensor in model.graph.initializer if list(tensor.dims) == [32, 24]]
    (name,) = [tensor.name for tensor in tensors if "position" in tensor.name]

    def spoil(table: Any) -> Any:
        table[31] = np.linspace(-wrong, wrong, table.shape[1])
        return table

    change_weight(model, name, spoil)
    with pytest.raises(ParityError, match=r"at batch x length \dx32 a logit differs"):
        check_parity(saved(model, tmp_path), exported.student, atol=1e-4)


def test_a_single_changed_prediction_is_caught(tmp_path: Path, exported: Any) -> None:
    """The bias moves just enough to flip the row that torch is least sure of."""
    dev = tiny_split("dev", 75, seed=21)
    assert check_agreement(exported.file, exported.student, dev) == 75
    logits = exported.student.logits(dev.inputs())
    ordered = np.sort(logits, axis=1)
    gaps = ordered[:, 2] - ordered[:, 1]
    row = int(gaps.argmin())
    lift = np.zeros(3, dtype=np.float32)
    lift[np.argsort(logits[row])[1]] = gaps[row] * 1.5
    moved = (logits + lift).argmax(axis=1) != logits.argmax(axis=1)
    model = onnx.load(exported.file)
    change_weight(model, classifier_names(model)[1], lambda bias: bias + lift)
    message = f"{moved.sum()} of 75 predictions on dev .* first at row {moved.argmax() + 1}"
    with pytest.raises(ParityError, match=message):
        check_agreement(saved(model, tmp_path), exported.student, dev)


def test_agreement_of_label_sets_under_their_thresholds(tmp_path: Path) -> None:
    """A label that flips is caught, unless its logit lies within what parity allows."""
    dev = tiny_multilabel(8, 24).dev
    folder = save_tiny(tiny_bert(), tmp_path / "student")
    student = open_tiny(folder)
    file = tmp_path / "model.onnx"
    export_onnx(folder, file, opset=17)
    logits = student.logits(dev.texts).astype(np.float64)
    # the second label's threshold sits a little above the logit of row 5
    at = logits[5, 1] + 1e-3
    thresholds = Thresholds((0.5, 1 / (1 + np.exp(-at)), 0.5), "by hand")
    assert check_agreement(file, student, dev, thresholds, atol=1e-4) == 24
    model = onnx.load(file)

    def lift(bias: Any) -> Any:
        bias[1] += 2e-3
        return bias

    change_weight(model, classifier_names(model)[1], lift)
    lifted = saved(model, tmp_path)
    moved = (logits[:, 1] < at) & (logits[:, 1] + 2e-3 >= at)
    with pytest.raises(ParityError, match=f"{moved.sum()} of 24 predictions on dev differ"):
        check_agreement(lifted, student, dev, thresholds, atol=1e-4)
    rounding = check_agreement(lifted, student, dev, thresholds, atol=1e-2)
    assert rounding == 24 - moved.sum()
    model = onnx.load(file)
    change_weight(model, classifier_names(model)[1], lambda bias: bias + np.nan)
    with pytest.raises(ParityError, match="predictions on dev differ"):
        check_agreement(saved(model, tmp_path), student, dev, thresholds, atol=1e-2)


def test_agreement_of_a_regression_compares_values(tmp_path: Path) -> None:
    dev = tiny_regression(16, 16).dev
    folder = save_tiny(tiny_bert(("value",)), tmp_path / "student")
    student = open_tiny(folder)
    file = tmp_path / "model.onnx"
    export_onnx(folder, file, opset=17)
    assert check_agreement(file, student, dev) == 16
    assert student.max_length == MAX_LENGTH
    for wrong in (2e-3, np.nan):
        model = onnx.load(file)
        change_weight(model, classifier_names(model)[1], lambda bias, add=wrong: bias + add)
        with pytest.raises(ParityError, match="16 of 16 predictions on dev differ"):
            check_agreement(saved(model, tmp_path), student, dev)
