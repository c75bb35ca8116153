"""The table of tasks: targets, predictions, losses by hand, and transformers' own losses."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from factory.data.dataset import Split
from factory.evaluation.thresholds import fixed_thresholds
from factory.models.tasks import TASKS, task_of, task_of_model
from serving.bundle import Task

ROWS: dict[Task, list[Any]] = {
    "classification": [2, 0, 1],
    "regression": [0.5, -1.0, 2.0],
    "multilabel": [(0, 2), (), (1,)],
}
STUDENT = torch.tensor([[0.5, -1.0, 2.0], [0.0, 3.0, -0.25]])
TEACHER = torch.tensor([[2.0, -3.0, 0.0], [-1.0, 1.0, 4.0]])


def split_of(task: Task) -> Split:
    return Split("train", ["a", "b", "c"], None, ROWS[task])


@pytest.mark.parametrize("task", get_args(Task))
def test_a_split_and_a_config_name_their_task(task: Task) -> None:
    assert TASKS[task].name == task_of(split_of(task)).name == task
    assert task_of_model(BertConfig(problem_type=TASKS[task].problem_type)) is TASKS[task]


@pytest.mark.parametrize(("labels", "task"), [(1, "regression"), (2, "classification")])
def test_a_config_without_a_problem_type(labels: int, task: Task) -> None:
    assert task_of_model(BertConfig(num_labels=labels)) is TASKS[task]


def test_targets() -> None:
    found = {task: TASKS[task].targets(split_of(task), 3) for task in get_args(Task)}
    assert found["classification"].tolist() == [2, 0, 1]
    assert found["regression"].tolist() == [0.5, -1.0, 2.0]
    assert found["multilabel"].astype(int).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_predictions_are_shaped_as_targets() -> None:
    logits = np.array([[0.5, -1.0, 2.0], [0.0, 3.0, -0.25]], dtype=np.float32)
    assert TASKS["classification"].predict(logits, None).tolist() == [2, 1]
    assert TASKS["regression"].predict(logits[:, :1], None).tolist() == [0.5, 0.0]
    sets = TASKS["multilabel"].predict(logits, fixed_thresholds(0.5, 3))
    assert sets.astype(int).tolist() == [[1, 0, 1], [1, 1, 0]]
    with pytest.raises(ValueError, match="thresholds"):
        TASKS["multilabel"].predict(logits, None)


def test_activations() -> None:
    logits = np.array([[0.0, math.log(3)]], dtype=np.float32)
    assert TASKS["classification"].activation(logits) == pytest.approx(np.array([[0.25, 0.75]]))
    assert TASKS["multilabel"].activation(logits) == pytest.approx(np.array([[0.5, 0.75]]))
    assert TASKS["regression"].activation(logits[:, 1:]) == pytest.approx(math.log(3))


@pytest.mark.parametrize("task", get_args(Task))
def test_the_mean_label_loss_is_the_loss_of_transformers(task: Task) -> None:
    one = TASKS[task]
    labels = 1 if task == "regression" else 3
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, num_labels=labels, problem_type=one.problem_type,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    targets = torch.from_numpy(one.targets(split_of(task), labels))
    ids = torch.tensor([[1, 2], [3, 4], [5, 6]])
    own = targets if task == "classification" else targets.float()
    with torch.no_grad():
        expected = model(input_ids=ids, labels=own)
        found = one.label_loss(expected.logits, targets)
    assert found.shape == (3,)
    torch.testing.assert_close(found.mean(), expected.loss)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_teacher_losses_by_hand(temperature: float) -> None:
    classes, label_sets = [], []
    for student, teacher in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True):
        wanted = [math.exp(value / temperature) for value in teacher]
        given = [math.exp(value / temperature) for value in student]
        shares = zip(wanted, given, strict=True)
        entropy = -sum(w / sum(wanted) * math.log(g / sum(given)) for w, g in shares)
        classes.append(entropy * temperature**2)
        odds = zip(wanted, given, strict=True)
        binary = sum(math.log(1 + g) - w / (1 + w) * math.log(g) for w, g in odds)
        label_sets.append(binary * temperature**2)
    found = TASKS["classification"].teacher_loss(STUDENT, TEACHER, temperature)
    assert found.tolist() == pytest.approx(classes, rel=1e-5)
    found = TASKS["multilabel"].teacher_loss(STUDENT, TEACHER, temperature)
    assert found.tolist() == pytest.approx(label_sets, rel=1e-5)
    # the temperature does not enter: values are compared as they are
    found = TASKS["regression"].teacher_loss(STUDENT[:, :1], TEACHER[:, :1], temperature)
    assert found.tolist() == [2.25, 1.0]


@pytest.mark.parametrize(("task", "parts"), [("classification", 3), ("multilabel", 4)])
def test_the_square_keeps_the_gradient_when_the_temperature_is_high(task: Task, parts: int) -> None:
    """It tends to (student - teacher) / parts, for classes of centred logits (Hinton, 2015)."""
    student, teacher = (logits - logits.mean(dim=1, keepdim=True) for logits in (STUDENT, TEACHER))
    moved = student.clone().requires_grad_()
    TASKS[task].teacher_loss(moved, teacher, 1000.0).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(moved.grad, (student - teacher) / parts, rtol=1e-2, atol=2e-3)


def test_two_classes_are_one_label() -> None:
    """A softmax over (0, x) is the sigmoid of x."""
    student, teacher = (
        torch.cat([torch.zeros(2, 1), logits[:, :1]], dim=1) for logits in (STUDENT, TEACHER)
    )
    torch.testing.assert_close(
        TASKS["multilabel"].teacher_loss(STUDENT[:, :1], TEACHER[:, :1], 4.0),
        TASKS["classification"].teacher_loss(student, teacher, 4.0),
    )


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_large_logits_stay_finite(task: Task) -> None:
    student = torch.tensor([[300.0, -300.0]], requires_grad=True)
    loss = TASKS[task].teacher_loss(student, torch.tensor([[-300.0, 300.0]]), 1.0)
    assert loss.item() == pytest.approx(600.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_a_multilabel_head_starts_at_the_share_of_each_label() -> None:
    bias = TASKS["multilabel"].initial_bias
    assert bias is not None
    targets = np.array([[1, 0], [1, 0], [0, 0]], dtype=np.bool_)
    # (2 + 1/2) / (3 + 1) and (0 + 1/2) / (3 + 1), as log odds
    assert bias(targets).tolist() == pytest.approx([math.log(2.5 / 1.5), math.log(0.5 / 3.5)])
