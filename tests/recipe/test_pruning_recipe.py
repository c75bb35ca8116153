"""The recipe's section [prune]: its errors, and the stages it adds and changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.pipeline_run import line_recipe

from factory.errors import RecipeError
from factory.planning import RunPlan, make_plan

BEHIND = ["evaluate", "export", "quantize", "bundle"]
PRUNED = {"prune.neurons": 8}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A recipe's folder with files to hash; nothing here is ever loaded."""
    (tmp_path / "more.txt").write_text("more\n", encoding="utf-8")
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text(f"text\tlabel\n{name}\ta\n", encoding="utf-8")
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text("{}", encoding="utf-8")
    return tmp_path


def plan_of(base: Path, changes: Mapping[str, Any] | None = None) -> RunPlan:
    return make_plan(line_recipe(changes), base)


def changed(old: RunPlan, new: RunPlan) -> list[str]:
    return [name for name, key in new.keys.items() if old.keys.get(name) != key]


@pytest.mark.parametrize("neurons", [32, 33, 1200])
def test_neurons_must_be_fewer_than_the_students(neurons: int) -> None:
    with pytest.raises(RecipeError) as caught:
        line_recipe({"prune.neurons": neurons})
    (problem,) = caught.value.problems
    assert problem.startswith(f"prune: neurons {neurons} removes nothing from the student's 32")
    assert "student.intermediate" in problem
    assert line_recipe({"prune.neurons": 31}).prune is not None
    with pytest.raises(RecipeError, match="the student's 1200"):  # the default
        line_recipe({"student": {}, "prune.neurons": 1200})


def test_problems_of_the_student_are_reported_alone() -> None:
    with pytest.raises(RecipeError) as caught:
        line_recipe({"student.heads": 5, "prune.neurons": 1000})
    assert len(caught.value.problems) == 1
    assert "heads" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"prune": {}}, "prune.neurons: required"),
        ({"prune.neurons": 0}, "prune.neurons"),
        ({"prune": {"neurons": 8, "epochs": -1.0}}, "prune.epochs"),
        ({"prune": {"neurons": 8, "learning_rate": 0.0}}, "prune.learning_rate"),
        ({"prune": {"neurons": 8, "calibration_rows": 0}}, "prune.calibration_rows"),
        ({"prune": {"neurons": 8, "neuron": 4}}, "prune.neuron: unknown key; did you mean"),
        ({"prune": {"neurons": 8, "heads": 4}}, "prune.heads: unknown key"),
    ],
)
def test_other_mistakes(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        line_recipe(changes)
    assert any(line.startswith(problem) for line in caught.value.problems)


def test_the_stage_is_between_the_student_and_the_following_stages(base: Path) -> None:
    plain, pruned = plan_of(base), plan_of(base, PRUNED)
    assert list(pruned.keys) == ["data", "teacher", "distill", "prune", *BEHIND]
    assert changed(plain, pruned) == ["prune", *BEHIND]
    inputs = {name: set(key.inputs) for name, key in pruned.keys.items()}
    assert inputs["prune"] == {"data", "teacher", "distill"}
    assert inputs["evaluate"] == {"data", "teacher", "distill", "prune"}
    assert inputs["export"] == {"data", "prune"}
    trimmed = plan_of(base, {**PRUNED, "export.general_pieces": 5})
    assert set(trimmed.keys["trim"].inputs) == {"data", "prune"}


def test_which_settings_change_it(base: Path) -> None:
    before = plan_of(base, PRUNED)
    for changes in (
        {"prune.neurons": 9},
        {"prune.epochs": 2.0},
        {"prune.learning_rate": 1e-3},
        {"prune.calibration_rows": 9},
    ):
        assert changed(before, plan_of(base, {**PRUNED, **changes})) == ["prune", *BEHIND]
    warmer = {**PRUNED, "distill.prediction.temperature": 2.0}
    assert changed(before, plan_of(base, warmer)) == ["distill", "prune", *BEHIND]
    # the baseline is without a teacher and without pruning
    baseline = {"distill.baseline": "random"}
    pruned_too = plan_of(base, {**baseline, **PRUNED})
    assert plan_of(base, baseline).keys["baseline"] == pruned_too.keys["baseline"]
    with_text = plan_of(base, {**PRUNED, "data.unlabelled": "more.txt"})
    assert "unlabelled" in with_text.keys["prune"].inputs
    assert changed(before, plan_of(base, {**PRUNED, "gate.min_value": 0.1})) == ["bundle"]
