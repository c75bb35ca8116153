"""What the student learns on: which rows, in which phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import QUICK, SMALL, STUDENT

from factory.distill import tinybert
from factory.distill.tinybert import distill
from factory.distill.transfer_set import NO_SOURCE, AugmentedRows, transfer_set
from factory.models.classifier import TorchClassifier
from factory.models.encoding import EncodedRows
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
