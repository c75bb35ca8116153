"""Importance against what it stands for: the slope of a row's loss when one unit fades."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import MAX_LENGTH, tiny_bert, tiny_split, tiny_tokenizer
from torch.nn import functional

from factory.distill.losses import teacher_loss
from factory.distill.prune import neuron_importance, taylor_importance
from factory.models.encoding import EncodedRows, encode_inputs

ROWS = 7
STEP = 1e-4


@pytest.fixture(scope="module")
def student() -> Any:
    return tiny_bert(num_hidden_layers=2, intermediate_size=6)


@pytest.fixture(scope="module")
def rows() -> EncodedRows:
    """Rows of several lengths, so that a batch is padded."""
    found = encode_inputs(tiny_tokenizer(), tiny_split("train", ROWS, seed=2).texts, MAX_LENGTH)
    assert len(set(found.lengths)) > 3
    return found


@pytest.fixture(scope="module")
def teacher_logits() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)


def row_losses(model: Any, rows: EncodedRows, teacher_logits: np.ndarray) -> np.ndarray:
    """Soft cross entropy of every row, computed alone and in float64."""
    losses = []
    for ids, wanted in zip(rows.input_ids, teacher_logits, strict=True):
        with torch.no_grad():
            logits = model(torch.from_numpy(ids).long()[None]).logits[0]
        soft = torch.from_numpy(wanted).double().softmax(dim=0)
        losses.append(float(-(soft * functional.log_softmax(logits, dim=0)).sum()))
    return np.array(losses)


def slopes(model: Any, column: torch.Tensor, rows: EncodedRows, wanted: np.ndarray) -> np.ndarray:
    """How each row's loss moves as what a unit passes on grows; `column` is a view of a weight."""
    original = column.clone()
    moved = []
    for sign in (1, -1):
        column.copy_(original * (1 + sign * STEP))
        moved.append(row_losses(model, rows, wanted))
    column.copy_(original)
    return (moved[0] - moved[1]) / (2 * STEP)


def test_the_importance_of_a_neuron_is_the_mean_slope_of_the_rows(
    student: Any, rows: EncodedRows, teacher_logits: np.ndarray
) -> None:
    loss = teacher_loss(student, 1.0)
    found = neuron_importance(student, rows, teacher_logits, loss, "cpu")
    precise = tiny_bert(num_hidden_layers=2, intermediate_size=6).double()
    expected = np.zeros((2, 6))
    for number, layer in enumerate(precise.bert.encoder.layer):
        whole = layer.output.dense.weight
        for neuron in range(6):
            column = whole.data[:, neuron : neuron + 1]
            moves = slopes(precise, column, rows, teacher_logits)
            # a mean of sizes: rows that pull in opposite directions must not cancel
            expected[number, neuron] = np.abs(moves).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)


def test_the_importance_of_a_head(
    student: Any, rows: EncodedRows, teacher_logits: np.ndarray
) -> None:
    loss = teacher_loss(student, 1.0)
    modules = [layer.attention.self for layer in student.bert.encoder.layer]
    found = taylor_importance(student, modules, 4, rows, teacher_logits, loss, "cpu")
    precise = tiny_bert(num_hidden_layers=2, intermediate_size=6).double()
    for number, head in ((0, 1), (1, 3)):
        weight = precise.bert.encoder.layer[number].attention.output.dense.weight
        view = weight.data[:, head * 6 : head * 6 + 6]
        expected = np.abs(slopes(precise, view, rows, teacher_logits)).mean()
        assert found[number, head] == pytest.approx(expected, rel=1e-3)


def test_it_is_the_same_in_batches_of_any_size_and_leaves_no_trace(
    student: Any,
    rows: EncodedRows,
    teacher_logits: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = teacher_loss(student, 2.0)
    whole = neuron_importance(student, rows, teacher_logits, loss, "cpu")
    monkeypatch.setattr("factory.distill.prune.CALIBRATION_BATCH_SIZE", 2)
    parts = neuron_importance(student, rows, teacher_logits, loss, "cpu")
    np.testing.assert_allclose(parts, whole, rtol=1e-4)
    assert all(parameter.grad is None for parameter in student.parameters())
    assert not [hook for module in student.modules() for hook in module._forward_hooks.values()]


@pytest.mark.parametrize("kind", ["regression", "multi_label_classification"])
def test_other_tasks(kind: str, rows: EncodedRows) -> None:
    labels = ("value",) if kind == "regression" else ("one", "two")
    student = tiny_bert(labels, num_hidden_layers=1, intermediate_size=6, problem_type=kind)
    wanted = np.random.default_rng(1).normal(size=(ROWS, len(labels))).astype(np.float32)
    found = neuron_importance(student, rows, wanted, teacher_loss(student, 1.0), "cpu")
    assert found.shape == (1, 6)
    assert (found > 0).all()
