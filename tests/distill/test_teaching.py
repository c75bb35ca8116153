"""The teacher during distillation, and what the student learns from it."""

from __future__ import annotations

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
from factory.distill.transfer_set import cached_logits
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


def test_what_each_phase_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a teacher left in training mode, whose dropout of one half must not enter.

    The prediction loss of a shuffled batch is compared with the rows' texts run one by one.
    """
    model = tiny_bert(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    teacher, temperature = tiny_classifier(model), 2.0
    expected = teacher.logits(SMALL.train.inputs())
    model.train()
    found: dict[str, tuple[list[str], int]] = {}

    def look(phase: Phase, loss: BatchLoss, rows: EncodedRows) -> None:
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not hooks_of(loss)
        loss.eval()
        positions = np.array([41, 3, 17, 8, 30])
        batch = collate(rows, positions, "cpu")
        passes: list[int] = []
        handle = model.bert.register_forward_hook(lambda *_: passes.append(1))
        total = loss(batch)["total"]
        handle.remove()
        found[phase.name] = (sorted(name for name, _ in loss.named_children()), len(passes))
        assert loss(batch)["total"].item() == total.item()
        total.backward()  # reaches everything that the phase trains
        assert all(parameter.grad is not None for parameter in loss.parameters())
        loss.zero_grad(set_to_none=True)
        loss.train()
        if phase.name == "intermediate":
            return
        losses = []
        for position in positions:
            alone = collate(rows, np.array([position]), "cpu")
            ours = forward_logits(loss.student.eval(), alone)[0].detach().double() / temperature
            theirs = torch.from_numpy(expected[position]).double() / temperature
            losses.append(-(theirs.softmax(dim=0) * ours.log_softmax(dim=0)).sum().item())
        assert total.item() == pytest.approx(np.mean(losses) * temperature**2, rel=1e-4)

    original = tinybert.train

    def spying(phase: Phase, loss: BatchLoss, rows: EncodedRows, *rest: Any) -> list[LossPoint]:
        look(phase, loss, rows)
        return original(phase, loss, rows, *rest)

    monkeypatch.setattr(tinybert, "train", spying)
    prediction = PredictionSettings(epochs=1, temperature=temperature)
    run(tmp_path, teacher, settings=QUICK.model_copy(update={"prediction": prediction}))
    # no projections and no forward pass of the teacher in the prediction phase
    assert found == {
        "intermediate": (["projections", "trained"], 1),
        "prediction": (["student"], 0),
    }
    np.testing.assert_array_equal(np.load(tmp_path / "teacher_logits.npy"), expected)


def test_the_teachers_logits_are_computed_once(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = SMALL.train.inputs()
    first = cached_logits(tmp_path, teacher, inputs)
    np.testing.assert_array_equal(first, teacher.logits(inputs))
    monkeypatch.setattr(TorchClassifier, "logits", None)
    np.testing.assert_array_equal(cached_logits(tmp_path, teacher, inputs), first)


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
