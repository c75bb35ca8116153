"""The transfer set: its rows in each phase, held-out rows, and the choice among seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import QUICK, SMALL, STUDENT, run, same, weights

from factory.distill import tinybert
from factory.distill import transfer_set as module
from factory.distill.losses import teacher_loss
from factory.distill.tinybert import distill
from factory.distill.transfer_set import (
    NO_SOURCE,
    AugmentedRows,
    DistillationData,
    TransferSet,
    held_out_loss,
    hold_out,
    transfer_set,
)
from factory.models.classifier import TorchClassifier, forward_logits
from factory.models.encoding import EncodedRows, collate, encode_inputs
from factory.recipe.training import DistillSettings
from factory.training.trainer import Phase

LABELLED = ["one two", "three four five"]
VARIANTS = AugmentedRows(
    ["one six", "one seven eight", "nine four five"], np.array([0, 0, 1], dtype=np.int32)
)
OTHERS = ["ten", "eleven twelve"]


def settings(**changes: Any) -> DistillSettings:
    return QUICK.model_copy(update=changes)


def test_rows_stand_in_order(teacher: TorchClassifier) -> None:
    found = transfer_set(LABELLED, VARIANTS, OTHERS, teacher.tokenizer, 24)
    assert found.inputs == [*LABELLED, *VARIANTS.inputs, *OTHERS]
    assert found.source_rows.tolist() == [0, 1, 0, 0, 1, NO_SOURCE, NO_SOURCE]
    assert len(found.rows) == 7


@pytest.mark.parametrize("phases", ["both", "prediction"])
def test_each_phase_learns_on_its_rows(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch, phases: str
) -> None:
    rows_of: dict[str, int] = {}
    original = tinybert.train

    def counting(phase: Phase, model: Any, rows: EncodedRows, *rest: Any) -> Any:
        rows_of[phase.name] = len(rows)
        return original(phase, model, rows, *rest)

    monkeypatch.setattr(tinybert, "train", counting)
    labelled = len(SMALL.train)
    variants = AugmentedRows(list(SMALL.train.texts[:8])[::-1], np.arange(8, dtype=np.int32)[::-1])
    others = list(SMALL.dev.texts)
    facts = distill(
        tmp_path,
        teacher,
        SMALL.train,
        STUDENT,
        None,
        settings(unlabelled_phases=phases),
        variants,
        others,
    )
    everything = labelled + 8 + len(others)
    first = everything if phases == "both" else labelled + 8
    assert rows_of == {"intermediate": first, "prediction": everything}
    epochs = {"intermediate": QUICK.intermediate.epochs, "prediction": QUICK.prediction.epochs}
    for phase, steps in facts["steps"].items():
        per_epoch = -(-rows_of[phase] // QUICK.batch_size)
        assert steps == round(epochs[phase] * per_epoch)


# held-out rows

ROWS = np.r_[np.arange(40), np.full(60, NO_SOURCE)]


def test_only_labelled_rows_are_held_out() -> None:
    learned, held_out = hold_out(ROWS, 40, 0.25, seed=1)
    assert len(held_out) == 10
    assert held_out.max() < 40
    assert sorted([*learned, *held_out]) == list(range(100))
    again = hold_out(ROWS, 40, 0.25, seed=1)[1]
    other = hold_out(ROWS, 40, 0.25, seed=2)[1]
    assert again.tolist() == held_out.tolist() != other.tolist()
    assert hold_out(ROWS, 40, 0.0, seed=1)[1].tolist() == []


def test_variants_of_held_out_rows_are_not_learned_on() -> None:
    variants_of = np.repeat(np.arange(40), 2)
    learned, held_out = hold_out(np.r_[ROWS, variants_of], 40, 0.25, seed=1)
    assert held_out.tolist() == hold_out(ROWS, 40, 0.25, seed=1)[1].tolist()
    assert set(variants_of[learned[learned >= 100] - 100]) == set(range(40)) - set(held_out)


def test_the_held_out_loss_is_the_mean_over_rows_one_by_one(teacher: TorchClassifier) -> None:
    rows = encode_inputs(teacher.tokenizer, SMALL.train.inputs(), 24)
    held_out = np.array([3, 8, 20, 21, 40])
    logits = np.random.default_rng(0).normal(size=(len(rows), 3)).astype(np.float32)
    total = 0.0
    for row in held_out:
        ours = forward_logits(teacher.model.eval(), collate(rows, np.array([row]), "cpu"))
        ours = ours[0].detach().numpy().astype(float)
        wanted = np.exp(logits[row].astype(float))
        total -= float((wanted / wanted.sum() * (ours - np.log(np.exp(ours).sum()))).sum())
    loss = teacher_loss(teacher.model, 1.0)
    transfer = TransferSet([*SMALL.train.inputs()], rows, np.arange(len(rows)))
    data = DistillationData(teacher, transfer, logits, np.arange(3), held_out)
    result = held_out_loss(teacher.model, data, loss)
    assert result == pytest.approx(total / 5, rel=1e-5)


def test_the_seed_with_the_lowest_loss_is_kept(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = QUICK.model_copy(update={"seeds": 3, "holdout_fraction": 0.2})
    facts = run(tmp_path / "several", teacher, settings=several)
    losses = facts["held_out"]["loss_by_seed"]
    assert facts["held_out"]["rows"] == 10
    assert facts["rows"] == 40
    assert sorted(losses) == [3, 4, 5]
    assert len(set(losses.values())) == 3
    assert sorted(p.name for p in (tmp_path / "several").iterdir()) == [
        "losses.csv",
        "model",
        "teacher_logits.npy",
    ]
    # the same student as that seed alone on the same rows
    best = min(losses, key=lambda seed: losses[seed])
    split = hold_out(np.arange(50), 50, 0.2, seed=3)
    monkeypatch.setattr(module, "hold_out", lambda *_: split)
    alone = QUICK.model_copy(update={"seed": best, "holdout_fraction": 0.2})
    run(tmp_path / "alone", teacher, settings=alone)
    assert same(weights(tmp_path / "alone"), weights(tmp_path / "several"))


def test_held_out_rows_are_not_learned_on(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other texts in the held-out places change nothing but the number they are judged by."""
    settings = QUICK.model_copy(update={"holdout_fraction": 0.2})
    held_out = hold_out(np.arange(50), 50, 0.2, seed=3)[1].tolist()
    first = run(tmp_path / "first", teacher, settings=settings)
    texts = list(SMALL.train.texts)
    for place in held_out:
        texts[place] = texts[held_out[0]]
    changed = type(SMALL.train)("train", texts, None, SMALL.train.targets)
    second = run(tmp_path / "second", teacher, changed, settings)
    assert first["held_out"] != second["held_out"]
    random = STUDENT.start
    assert random == "random"  # a derived start would look at the texts
    assert same(weights(tmp_path / "first"), weights(tmp_path / "second"))
