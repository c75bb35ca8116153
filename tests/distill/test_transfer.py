"""What the student learns on: which rows, in which phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import QUICK, SMALL, STUDENT

from factory.distill import intermediate, prediction
from factory.distill.phase import Phase
from factory.distill.task import distill
from factory.distill.transfer import NO_SOURCE, AugmentedRows, phase_rows, transfer_set
from factory.models.classifier import TorchClassifier
from factory.models.encoding import EncodedRows
from factory.recipe.training import DistillSettings

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


def test_rows_left_out_of_a_phase_are_not_counted() -> None:
    assert phase_rows(settings(), 2, 3, 2) == (7, 7)
    assert phase_rows(settings(unlabelled_phases="prediction"), 2, 3, 2) == (5, 7)


@pytest.mark.parametrize("phases", ["both", "prediction"])
def test_each_phase_learns_on_its_rows(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch, phases: str
) -> None:
    rows_of: dict[str, int] = {}
    for module in (intermediate, prediction):
        train = module.train_phase

        def counting(
            phase: Phase,
            modules: Any,
            rows: EncodedRows,
            *rest: Any,
            train: Any = train,
            **more: Any,
        ) -> Any:
            rows_of[phase.name] = len(rows)
            return train(phase, modules, rows, *rest, **more)

        monkeypatch.setattr(module, "train_phase", counting)
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
