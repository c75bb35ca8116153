"""What the teacher does while it teaches, and what the student learns from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import (
    open_tiny,
    tiny_bert,
    tiny_classifier,
    tiny_regression,
    train_plainly,
)
from tiny_runs import (
    LONG,
    QUICK,
    SMALL,
    garbled,
    hooks_of,
    losses_of,
    run,
    same,
    weights,
)

from factory.distill import tinybert
from factory.distill.transfer_set import cached_logits, transfer_set
from factory.models.classifier import TorchClassifier, forward_logits
from factory.models.encoding import EncodedRows, collate
from factory.recipe.training import PredictionSettings
from factory.training.loss_log import LossPoint
from factory.training.trainer import BatchLoss, Phase


def test_the_teacher_is_only_read(tmp_path: Path, teacher: TorchClassifier) -> None:
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    run(tmp_path, teacher)
    after = teacher.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in teacher.model.parameters())
    assert not hooks_of(teacher.model)


Spy = Callable[[Phase, BatchLoss, EncodedRows], None]


def spy_on_phases(monkeypatch: pytest.MonkeyPatch, look: Spy) -> list[str]:
    """Call `look` at the start of each phase, then train as usual; returns the phases' names."""
    names: list[str] = []
    original = tinybert.train

    def spying(phase: Phase, model: BatchLoss, rows: EncodedRows, *rest: Any) -> list[LossPoint]:
        names.append(phase.name)
        look(phase, model, rows)
        return original(phase, model, rows, *rest)

    monkeypatch.setattr(tinybert, "train", spying)
    return names


def test_the_teachers_dropout_is_off_while_it_teaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher left in training mode with a dropout of one half teaches the same thing twice."""
    model = tiny_bert(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    teacher = tiny_classifier(model)
    expected = teacher.logits(SMALL.train.inputs())
    model.train()

    def look(_phase: Phase, model_loss: BatchLoss, rows: EncodedRows) -> None:
        model_loss.eval()  # only the student's dropout
        batch = collate(rows, np.arange(16), "cpu")
        with torch.no_grad():
            assert model_loss(batch)["total"].item() == model_loss(batch)["total"].item()
        assert not any(module.training for module in model.modules())

    names = spy_on_phases(monkeypatch, look)
    run(tmp_path, teacher)
    assert names == ["intermediate", "prediction"]
    np.testing.assert_array_equal(np.load(tmp_path / "teacher_logits.npy"), expected)
    assert not any(module.training for module in model.modules())


def test_gradients_reach_the_student_and_not_the_teacher(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched: dict[str, set[str]] = {}  # a phase is given what it trains

    def look(phase: Phase, loss: BatchLoss, rows: EncodedRows) -> None:
        loss(collate(rows, np.arange(16), "cpu"))["total"].backward()
        untouched[phase.name] = {
            name for name, parameter in loss.named_parameters() if parameter.grad is None
        }
        loss.zero_grad(set_to_none=True)
        for parameter in teacher.model.parameters():
            assert parameter.grad is None
            assert not parameter.requires_grad

    spy_on_phases(monkeypatch, look)
    run(tmp_path, teacher)
    assert untouched == {"intermediate": set(), "prediction": set()}


def test_the_prediction_phase_runs_the_bare_student(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No projections, no hooks, no forward pass of the teacher."""
    modules_of: dict[str, list[str]] = {}
    teacher_passes: dict[str, int] = {}

    def look(phase: Phase, loss: BatchLoss, rows: EncodedRows) -> None:
        modules_of[phase.name] = sorted(name for name, _ in loss.named_children())
        assert not hooks_of(loss)
        passes: list[int] = []
        handle = teacher.model.bert.register_forward_hook(lambda *_: passes.append(1))
        loss(collate(rows, np.arange(4), "cpu"))
        handle.remove()
        teacher_passes[phase.name] = len(passes)

    spy_on_phases(monkeypatch, look)
    run(tmp_path, teacher)
    assert modules_of == {"intermediate": ["projections", "trained"], "prediction": ["student"]}
    assert teacher_passes == {"intermediate": 1, "prediction": 0}


def test_the_teachers_logits_are_computed_once(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = transfer_set(SMALL.train.inputs(), None, None, teacher.tokenizer, 24)
    first = cached_logits(tmp_path, teacher, transfer.inputs)
    np.testing.assert_array_equal(first, teacher.logits(SMALL.train.inputs()))
    monkeypatch.setattr(TorchClassifier, "logits", None)
    np.testing.assert_array_equal(cached_logits(tmp_path, teacher, transfer.inputs), first)


def test_each_row_meets_its_own_logits(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prediction loss of a shuffled batch against the rows' texts run one by one."""
    temperature = 2.0
    teacher_logits = teacher.logits(SMALL.train.inputs()).astype(float) / temperature

    def look(phase: Phase, loss: BatchLoss, rows: EncodedRows) -> None:
        if phase.name == "intermediate":
            return
        loss.eval()
        positions = np.array([41, 3, 17, 8, 30])
        total = 0.0
        for position in positions:
            theirs = teacher_logits[position]
            alone = collate(rows, np.array([position]), "cpu")
            ours = forward_logits(loss.student, alone)[0].detach().numpy() / temperature
            wanted = np.exp(theirs) / np.exp(theirs).sum()
            total -= float((wanted * (ours - np.log(np.exp(ours).sum()))).sum())
        found = loss(collate(rows, positions, "cpu"))["total"].item()
        assert found == pytest.approx(total / 5 * temperature**2, rel=1e-4)

    spy_on_phases(monkeypatch, look)
    prediction = PredictionSettings(epochs=1, temperature=temperature)
    run(tmp_path, teacher, settings=QUICK.model_copy(update={"prediction": prediction}))


def test_annotations_do_not_enter(tmp_path: Path, trained_folder: Path) -> None:
    run(tmp_path / "true", open_tiny(trained_folder))
    run(tmp_path / "garbled", open_tiny(trained_folder), garbled(SMALL.train))
    assert same(weights(tmp_path / "true"), weights(tmp_path / "garbled"))


def test_regression_learns_the_teachers_outputs(tmp_path: Path) -> None:
    data = tiny_regression()
    model = tiny_bert(data.labels, problem_type="regression")
    train_plainly(model, data.train, epochs=20)
    teacher = tiny_classifier(model)
    run(tmp_path, teacher, garbled(data.train), LONG)
    wanted = teacher.logits(data.dev.inputs())[:, 0]
    student = open_tiny(tmp_path / "model")
    assert student.model.config.problem_type == "regression"
    assert student.model.config.id2label == {0: "value"}
    got = student.logits(data.dev.inputs())[:, 0]
    assert np.std(wanted) > 0.5
    assert np.corrcoef(wanted, got)[0, 1] > 0.8
    assert np.abs(got).max() < 10
    values = losses_of(tmp_path)["prediction.total"]
    assert values[0] < 100  # squared distance to the annotations would be 1e12
    assert np.mean(values[-5:]) < 0.5 * np.mean(values[:5])
