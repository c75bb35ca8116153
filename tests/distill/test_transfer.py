"""What the student learns on: which rows, with what weight, in which phase."""

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
from factory.recipe.recipe import DistillSettings

LABELLED = ["one two", "three four five"]
VARIANTS = AugmentedRows(
    ["one six", "one seven eight", "nine four five"], np.array([0, 0, 1], dtype=np.int32)
)
OTHERS = ["ten", "eleven twelve"]


def settings(**changes: Any) -> DistillSettings:
    return QUICK.model_copy(update=changes)


def test_rows_stand_in_order_with_their_weights(teacher: TorchClassifier) -> None:
    weights = settings(augmented_weight=0.5, unlabelled_weight=0.25)
    found = transfer_set(LABELLED, VARIANTS, OTHERS, weights, teacher.tokenizer, 24)
    assert found.inputs == [*LABELLED, *VARIANTS.inputs, *OTHERS]
    assert found.weights.tolist() == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert found.source_rows.tolist() == [0, 1, 0, 0, 1, NO_SOURCE, NO_SOURCE]
    assert len(found.rows) == 7


@pytest.mark.parametrize(
    ("changes", "inputs", "rows"),
    [
        ({}, [*LABELLED, *VARIANTS.inputs, *OTHERS], (7, 7)),
        ({"augmented_weight": 0.0}, [*LABELLED, *OTHERS], (4, 4)),
        ({"unlabelled_weight": 0.0}, [*LABELLED, *VARIANTS.inputs], (5, 5)),
        ({"unlabelled_phases": "prediction"}, [*LABELLED, *VARIANTS.inputs, *OTHERS], (5, 7)),
    ],
)
def test_what_is_left_out_is_not_counted(
    teacher: TorchClassifier, changes: dict[str, Any], inputs: list[str], rows: tuple[int, int]
) -> None:
    chosen = settings(**changes)
    found = transfer_set(LABELLED, VARIANTS, OTHERS, chosen, teacher.tokenizer, 24)
    assert found.inputs == inputs
    assert phase_rows(chosen, 2, 3, 2) == rows


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
