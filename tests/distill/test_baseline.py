"""The phases a recipe asks for, and the student trained on hard labels alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_models import (
    accuracy,
    open_tiny,
    tiny_bert,
    tiny_classifier,
    tiny_regression,
)
from tiny_runs import (
    LONG,
    SETTINGS,
    SMALL,
    STUDENT,
    losses_of,
    run,
    same,
    weights,
)

from factory.data.dataset import Dataset
from factory.distill.baseline import baseline_phase, train_baseline
from factory.distill.transfer_set import intermediate_phase, prediction_phase
from factory.recipe.training import DistillSettings, IntermediateSettings, PredictionSettings
from factory.training.trainer import Phase, total_steps


def test_the_recipe_decides_both_phases() -> None:
    settings = DistillSettings(
        seed=8,
        batch_size=4,
        weight_decay=0.2,
        intermediate=IntermediateSettings(epochs=2.5, learning_rate=1e-3, warmup=0.3),
        prediction=PredictionSettings(epochs=1.5, learning_rate=2e-3, warmup=0.4, batch_size=2),
    )
    assert intermediate_phase(settings) == Phase("intermediate", 2.5, 4, 1e-3, 0.3, 0.2, 8)
    assert prediction_phase(settings) == Phase("prediction", 1.5, 2, 2e-3, 0.4, 0.2, 8)


@pytest.mark.parametrize("rows", [7, 44, 8551])
@pytest.mark.parametrize("epochs", [(6.0, 3.0), (4.15, 0.7), (0.0, 1.0)])
def test_the_baseline_gets_the_same_number_of_steps(rows: int, epochs: tuple[float, float]) -> None:
    settings = DistillSettings(
        batch_size=4,
        intermediate=IntermediateSettings(epochs=epochs[0], learning_rate=3e-4),
        prediction=PredictionSettings(epochs=epochs[1], learning_rate=5e-5),
    )
    phase = baseline_phase(settings, rows)
    phases = (intermediate_phase(settings), prediction_phase(settings))
    assert total_steps(phase, rows) == sum(total_steps(one, rows) for one in phases)
    more = baseline_phase(settings, rows, augmented=rows, unlabelled=2 * rows)
    assert total_steps(more, rows) == sum(total_steps(one, 4 * rows) for one in phases)
    late = settings.model_copy(update={"unlabelled_phases": "prediction"})
    steps = total_steps(phases[0], 2 * rows) + total_steps(phases[1], 4 * rows)
    assert total_steps(baseline_phase(late, rows, rows, 2 * rows), rows) == steps


@pytest.mark.parametrize(("start", "rate"), [("random", 6e-4), ("same", 1e-4)])
def test_the_baselines_rate_suits_its_start(start: str, rate: float) -> None:
    tree = {
        "baseline": start,
        "intermediate": {"learning_rate": 3e-4},
        "prediction": {"learning_rate": 5e-5},
    }
    assert baseline_phase(DistillSettings.model_validate(tree), 100).learning_rate == rate
    tree["baseline_learning_rate"] = 7e-4
    assert baseline_phase(DistillSettings.model_validate(tree), 100).learning_rate == 7e-4


def test_the_baseline_learns_the_annotations_not_the_teacher(
    tmp_path: Path, trained_folder: Path, dataset: Dataset
) -> None:
    changes = {"baseline": "random", "baseline_learning_rate": 3e-3}
    settings = SETTINGS.model_copy(update=changes)
    student = STUDENT.model_copy(update={"start": "teacher"})
    stranger = tiny_classifier(tiny_bert(seed=20))
    train = dataset.train
    facts = run(
        tmp_path / "one", open_tiny(trained_folder), train, settings, student, train_baseline
    )
    run(tmp_path / "two", stranger, train, settings, student, train_baseline)
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert accuracy(open_tiny(tmp_path / "one" / "model"), dataset.dev) > 0.6
    assert facts["steps"] == 84 + 56
    values = losses_of(tmp_path / "one")
    assert list(values) == ["baseline.total"]
    assert values["baseline.total"][0] == pytest.approx(np.log(3), abs=0.3)


def test_the_baseline_may_start_where_the_student_does(
    tmp_path: Path, trained_folder: Path
) -> None:
    nothing = DistillSettings(
        baseline="same",
        intermediate=IntermediateSettings(epochs=0),
        prediction=PredictionSettings(epochs=0),
    )
    student = STUDENT.model_copy(update={"start": "teacher"})
    arguments = (SMALL.train, nothing, student)
    run(tmp_path / "student", open_tiny(trained_folder), *arguments)
    run(tmp_path / "baseline", open_tiny(trained_folder), *arguments, stage=train_baseline)
    assert same(weights(tmp_path / "student"), weights(tmp_path / "baseline"))


def test_the_baseline_fits_numbers(tmp_path: Path) -> None:
    data = tiny_regression()
    teacher = tiny_classifier(tiny_bert(data.labels, problem_type="regression"))
    settings = LONG.model_copy(update={"baseline_learning_rate": 5e-3})
    run(tmp_path, teacher, data.train, settings, stage=train_baseline)
    values = losses_of(tmp_path)["baseline.total"]
    assert np.mean(values[-5:]) < 0.5 * np.mean(values[:5])
